"""Stage 2, compile: the shapes of tasks and of the whole document; continues shapes.pxi."""

cdef Shape TASKS = Shape("a list of tasks, each an object with one key, the task's name", IS_LIST, rule=RULE_TASKS)
cdef Shape BRANCHES = Shape("a list of tasks, each an object with one key, the task's name", IS_LIST,
                            rule=RULE_BRANCHES)
cdef Shape TASK = Shape("a task (an object)", IS_OBJECT, rule=RULE_TASK)

cdef dict COMMON_FIELDS = {
    "if": Field(EXPRESSION, variables=TASK_INPUT),
    "input": Field(INPUT, variables=TASK_INPUT),
    "output": Field(OUTPUT, variables=TASK_OUTPUT),
    "export": Field(OUTPUT, variables=TASK_OUTPUT),
    "timeout": Field(TIMEOUT_OR_REFERENCE),
    "then": Field(THEN),
    "metadata": Field(FREE_MAP),
}


def _task(dict fields, tuple required):
    """A task kind: its own keys beside the common ones."""
    return Shape("a task (an object)", IS_OBJECT, fields={**COMMON_FIELDS, **fields}, required=required)


# --- call ---

cdef Shape CALL_NAME = Shape("a protocol or the name of a function (a string)", IS_TEXT, text=TEXT_FUNCTION)


def _call(dict fields, tuple required, str unsupported=None, **extra):
    """A call of a protocol: `call` is its name, `with` its arguments."""
    arguments = Shape("the call's arguments (an object)", IS_OBJECT, fields=fields, required=required, **extra)
    return _task({"call": Field(CALL_NAME, unsupported=unsupported), "with": Field(arguments)}, ("call", "with"))


cdef Shape VALUE_MAP_OR_WRAPPED = Shape("an object of strings or an expression in ${ }", IS_OBJECT | IS_TEXT,
                                        text=TEXT_WRAPPED, members=VALUE)
cdef Shape ITERATOR = Shape("an object", IS_OBJECT, fields={
    "item": Field(VARIABLE),
    "at": Field(VARIABLE),
    "do": Field(TASKS, names=NAMES_ITEM),
    "output": Field(OUTPUT, variables=TASK_OUTPUT, names=NAMES_ITEM),
    "export": Field(OUTPUT, variables=TASK_OUTPUT, names=NAMES_ITEM),
})
cdef Shape SUBSCRIPTION = Shape("a subscription: an object with consume", IS_OBJECT, required=("consume",), fields={
    "filter": WRAPPED,
    "consume": Shape("a consumption policy: an object with amount, while or until", IS_OBJECT,
                     fields={"for": DURATION, "amount": INTEGER, "while": WRAPPED, "until": WRAPPED},
                     choices=(("amount", "while", "until"),)),
    "foreach": ITERATOR,
})
cdef dict CALLS = {
    "http": _call({
        "method": Shape("an HTTP method (a string)", IS_TEXT, text=TEXT_METHOD),
        "endpoint": ENDPOINT,
        "headers": VALUE_MAP_OR_WRAPPED,
        "query": VALUE_MAP_OR_WRAPPED,
        "body": ANYTHING,
        "output": HTTP_OUTPUT,
        "redirect": BOOLEAN,
    }, ("method", "endpoint")),
    "openapi": _call({
        "document": RESOURCE,
        "operationId": VALUE,
        "parameters": TEMPLATE_MAP,
        "authentication": AUTHENTICATION,
        "output": HTTP_OUTPUT,
        "redirect": BOOLEAN,
    }, ("document", "operationId"), "call: openapi"),
    "grpc": _call({
        "proto": RESOURCE,
        "service": Shape("a gRPC service: an object with name and host", IS_OBJECT, required=("name", "host"), fields={
            "name": VALUE,
            "host": Shape("a host name (a string)", IS_TEXT, text=TEXT_HOST),
            "port": Shape("a port", IS_INTEGER, low=0, high=65535),
            "authentication": AUTHENTICATION,
        }),
        "method": VALUE,
        "arguments": TEMPLATE_MAP,
    }, ("proto", "service", "method"), "call: grpc"),
    "asyncapi": _call({
        "document": RESOURCE,
        "channel": VALUE,
        "operation": VALUE,
        "server": Shape("a server: an object with name", IS_OBJECT, required=("name",),
                        fields={"name": VALUE, "variables": TEMPLATE_MAP}),
        "protocol": Shape("a protocol", IS_TEXT, text=TEXT_WORD, words=(
            "amqp", "amqp1", "anypointmq", "googlepubsub", "http", "ibmmq", "jms", "kafka", "mercure", "mqtt", "mqtt5",
            "nats", "pulsar", "redis", "sns", "solace", "sqs", "stomp", "ws")),
        "message": Shape("a message (an object)", IS_OBJECT,
                         fields={"payload": TEMPLATE_MAP, "headers": TEMPLATE_MAP}),
        "subscription": SUBSCRIPTION,
        "authentication": AUTHENTICATION,
    }, ("document",), "call: asyncapi", choices=(("operation", "channel"), ("message", "subscription"))),
    "a2a": _call({
        "agentCard": RESOURCE,
        "server": ENDPOINT,
        "method": Shape("an A2A method", IS_TEXT, text=TEXT_WORD, words=(
            "message/send", "message/stream", "tasks/get", "tasks/list", "tasks/cancel", "tasks/resubscribe",
            "tasks/pushNotificationConfig/set", "tasks/pushNotificationConfig/get",
            "tasks/pushNotificationConfig/list", "tasks/pushNotificationConfig/delete",
            "agent/getAuthenticatedExtendedCard")),
        "parameters": Shape("an object with at least one key, or an expression (a string)", IS_OBJECT | IS_TEXT,
                            text=TEXT_VALUE, is_template=True, size_min=1),
    }, ("method",), "call: a2a", rule=RULE_AGENT),
    "mcp": _call({
        "protocolVersion": VALUE,
        "method": Shape("an MCP method", IS_TEXT, text=TEXT_WORD, words=(
            "tools/list", "tools/call", "prompts/list", "prompts/get", "resources/list", "resources/read",
            "resources/templates/list")),
        "parameters": Shape("an object or an expression (a string)", IS_OBJECT | IS_TEXT, text=TEXT_VALUE,
                            is_template=True),
        "timeout": DURATION,
        "transport": Shape("an object with http or stdio", IS_OBJECT, choices=(("http", "stdio"),), fields={
            "http": Shape("an object with endpoint", IS_OBJECT, required=("endpoint",),
                          fields={"endpoint": ENDPOINT, "headers": VALUE_MAP}),
            "stdio": Shape("an object with command", IS_OBJECT, required=("command",),
                           fields={"command": VALUE, "arguments": VALUE_LIST, "environment": VALUE_MAP}),
            "options": VALUE_MAP,
        }),
        "client": Shape("an object with name and version", IS_OBJECT, required=("name", "version"),
                        fields={"name": VALUE, "version": VALUE}),
    }, ("method", "transport"), "call: mcp"),
}
cdef Shape CALL_FUNCTION = _task({"call": Field(CALL_NAME, unsupported="a call of a custom function"),
                                  "with": TEMPLATE_MAP}, ("call",))

# --- run ---

cdef dict PROCESS_FIELDS = {"stdin": VALUE, "arguments": VALUE_LIST, "environment": TEMPLATE_MAP}
cdef Shape LIFETIME = Shape("a container lifetime: an object with cleanup", IS_OBJECT, required=("cleanup",), fields={
    "cleanup": Shape("a cleanup policy", IS_TEXT, text=TEXT_WORD, words=("never", "always", "eventually")),
    "after": DURATION,
}, rule=RULE_LIFETIME)
cdef Shape RUN = Shape("an object with container, script, shell or workflow", IS_OBJECT, fields={
    "await": BOOLEAN,
    "return": Shape("a process output", IS_TEXT, text=TEXT_WORD, words=("stdout", "stderr", "code", "all", "none")),
    "container": Shape("a container: an object with image", IS_OBJECT, required=("image",), fields=dict(
        PROCESS_FIELDS, image=VALUE, name=VALUE, command=VALUE, ports=TEMPLATE_MAP, volumes=TEMPLATE_MAP,
        lifetime=LIFETIME, pullPolicy=Shape("a pull policy", IS_TEXT, text=TEXT_WORD,
                                            words=("ifNotPresent", "always", "never")))),
    "script": Shape("a script: an object with language and code or source", IS_OBJECT, required=("language",),
                    fields=dict(PROCESS_FIELDS, code=FREE, source=RESOURCE, language=Shape(
                        "a script language", IS_TEXT, text=TEXT_WORD, words=("js", "javascript", "python"))),
                    choices=(("code", "source"),)),
    "shell": Shape("a shell command: an object with command", IS_OBJECT, required=("command",),
                   fields=dict(PROCESS_FIELDS, command=VALUE)),
    "workflow": Shape("a workflow: an object with namespace, name and version", IS_OBJECT,
                      required=("namespace", "name", "version"),
                      fields={"namespace": VALUE, "name": VALUE, "version": VALUE, "input": TEMPLATE_MAP}),
}, choices=(("container", "script", "shell", "workflow"),))

# --- the other kinds ---

cdef Shape CASE = Shape("a case: an object with then and, but for the default, when", IS_OBJECT, required=("then",),
                        fields={"when": EXPRESSION, "then": THEN})
cdef Shape CATCH = Shape("an object", IS_OBJECT, fields={
    "errors": Shape("an object", IS_OBJECT, fields={"with": ERROR_FILTER}),
    "as": Field(VARIABLE),
    "when": Field(EXPRESSION, names=NAMES_ERROR),
    "exceptWhen": Field(EXPRESSION, names=NAMES_ERROR),
    "retry": Field(RETRY_OR_REFERENCE, names=NAMES_ERROR),
    "do": Field(TASKS, names=NAMES_ERROR),
    "then": Field(THEN),
})
cdef dict TASK_KINDS = {
    "do": _task({"do": TASKS}, ("do",)),
    "emit": _task({"emit": Field(Shape("an object with event", IS_OBJECT, required=("event",), fields={
        "event": Shape("an event: an object with `with`", IS_OBJECT, fields={"with": EMITTED_EVENT},
                       required=("with",)),
    }), unsupported="emit")}, ("emit",)),
    "for": _task({
        "for": Shape("a loop: an object with in", IS_OBJECT, required=("in",), fields={
            "each": VARIABLE,
            "in": Shape("an expression (a string) or a list of objects", IS_TEXT | IS_LIST, text=TEXT_EXPRESSION,
                        items=TEMPLATE_MAP),
            "at": VARIABLE,
        }),
        "while": Field(EXPRESSION, names=NAMES_LOOP),
        "do": Field(TASKS, names=NAMES_LOOP),
    }, ("for", "do")),
    "fork": _task({"fork": Shape("an object with branches", IS_OBJECT, required=("branches",),
                                 fields={"branches": BRANCHES, "compete": BOOLEAN})}, ("fork",)),
    "listen": _task({
        "listen": Field(Shape("an object with to", IS_OBJECT, required=("to",), fields={"to": STRATEGY, "read": READ}),
                        unsupported="listen"),
        "foreach": ITERATOR,
    }, ("listen",)),
    "raise": _task({"raise": Shape("an object with error", IS_OBJECT, required=("error",),
                                   fields={"error": ERROR_OR_REFERENCE})}, ("raise",)),
    "run": _task({"run": Field(RUN, unsupported="run")}, ("run",)),
    "set": _task({"set": Shape("an object with at least one key, or an expression (a string)", IS_OBJECT | IS_TEXT,
                               text=TEXT_EXPRESSION, is_template=True, size_min=1)}, ("set",)),
    "switch": _task({"switch": Shape("a list of at least one case, each an object with one key, the case's name",
                                     IS_LIST, rule=RULE_CASES, size_min=1)}, ("switch",)),
    "try": _task({"try": TASKS, "catch": CATCH}, ("try", "catch")),
    "wait": _task({"wait": DURATION}, ("wait",)),
    "call": CALL_FUNCTION,
}

# --- the document ---

cdef Shape EXTENSION = Shape("an extension: an object with extend", IS_OBJECT, required=("extend",), fields={
    "extend": Shape("a task kind to extend", IS_TEXT, text=TEXT_WORD, words=(
        "call", "composite", "emit", "for", "listen", "raise", "run", "set", "switch", "try", "wait", "all")),
    "when": EXPRESSION,
    "before": TASKS,
    "after": TASKS,
})
cdef Shape USE = Shape("an object", IS_OBJECT, fields={
    "authentications": Field(Shape("an object of authentication policies", IS_OBJECT, members=POLICY),
                             unsupported="authentication"),
    "catalogs": Field(Shape("an object of catalogs", IS_OBJECT, members=Shape(
        "a catalog: an object with endpoint", IS_OBJECT, fields={"endpoint": ENDPOINT}, required=("endpoint",))),
        unsupported="catalogs"),
    "errors": Field(Shape("an object of errors", IS_OBJECT, members=ERROR)),
    "extensions": Field(Shape("a list of extensions, each an object with one key, the extension's name", IS_LIST,
                              items=Shape("an object with one key, the extension's name", IS_OBJECT,
                                          members=EXTENSION, rule=RULE_SINGLE_KEY)), unsupported="extensions"),
    "functions": Field(Shape("an object of functions", IS_OBJECT, members=TASK, rule=RULE_FUNCTIONS),
                       unsupported="custom functions"),
    "retries": Field(Shape("an object of retry policies", IS_OBJECT, members=RETRY)),
    "secrets": Field(Shape("a list of secret names", IS_LIST, items=FREE), unsupported="secrets"),
    "timeouts": Field(Shape("an object of timeouts", IS_OBJECT, members=TIMEOUT)),
})
cdef Shape SCHEDULE = Shape("an object with every, cron, after or on", IS_OBJECT, rule=RULE_SCHEDULE, fields={
    "every": DURATION,
    "cron": Shape("a cron expression (a string)", IS_TEXT, text=TEXT_CRON),
    "after": DURATION,
    "on": STRATEGY,
    "read": READ,
})
cdef Shape ROOT = Shape("a workflow: an object with document and do", IS_OBJECT, required=("document", "do"), fields={
    "document": Shape("an object with dsl, namespace, name and version", IS_OBJECT,
                      required=("dsl", "namespace", "name", "version"), fields={
                          "dsl": Shape("a version of the DSL (a string)", IS_TEXT, text=TEXT_DSL),
                          "namespace": Shape("a namespace (a string)", IS_TEXT, text=TEXT_NAME),
                          "name": Shape("a name (a string)", IS_TEXT, text=TEXT_NAME),
                          "version": Shape("a semantic version (a string)", IS_TEXT, text=TEXT_SEMVER),
                          "title": FREE,
                          "summary": FREE,
                          "description": FREE,
                          "tags": FREE_MAP,
                          "metadata": FREE_MAP,
                      }),
    "input": Field(INPUT, variables=WORKFLOW_INPUT),
    "use": Field(USE, variables=ANY_VARIABLES),
    "do": TASKS,
    "timeout": Field(TIMEOUT_OR_REFERENCE, variables=WORKFLOW_INPUT),
    "output": Field(OUTPUT, variables=WORKFLOW_OUTPUT),
    "schedule": Field(SCHEDULE, variables=WORKFLOW_INPUT, unsupported="schedules"),
    "evaluate": Shape("an object", IS_OBJECT, fields={
        "language": Shape("an expression language (a string)", IS_TEXT, text=TEXT_LANGUAGE),
        "mode": Shape("strict or loose", IS_TEXT, text=TEXT_WORD, words=("strict", "loose")),
    }),
})


cdef int execute(str feature, Shape shape=None) except -1:
    """A kind that the DSL does not have comes with its shape."""
    if shape is not None:
        TASK_KINDS[feature] = shape
    return 0
