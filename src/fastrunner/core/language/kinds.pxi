"""Stage 2, compile: the shapes of tasks and of the whole document, as data; continues shapes.pxi.

Rules: all kinds of the DSL are here, so that a document is checked completely; a kind nobody has called `execute` for
is checked like the others and then refused as `unsupported`.
"""

cdef Shape TASK = Shape("a task (an object)", IS_OBJECT, rule=RULE_TASK)
cdef Shape NAMED_TASK = Shape("an object with one key, the name of a task", IS_OBJECT, members=TASK, rule=RULE_NAMED)
cdef Shape TASKS = Shape("a list of tasks, each an object with one key, the task's name", IS_LIST, items=NAMED_TASK,
                         rule=RULE_TASKS)
cdef Shape BRANCHES = Shape("a list of tasks, each an object with one key, the task's name", IS_LIST, items=NAMED_TASK,
                            rule=RULE_BRANCHES)

cdef dict COMMON_FIELDS = {
    "if": Field(EXPRESSION, AT_IF),
    "input": Field(_data("from", AT_INPUT_FROM)),
    "output": Field(_data("as", AT_OUTPUT_AS)),
    "export": Field(_data("as", AT_EXPORT_AS)),
    "timeout": Field(TIMEOUT_OR_REFERENCE, AT_TIMEOUT),
    "then": Field(THEN),
    "metadata": Field(FREE_MAP),
}


def _task(dict fields, tuple required, int binds=BINDS_NOTHING):
    """A task kind: its own keys beside the common ones."""
    return Shape("a task (an object)", IS_OBJECT, fields={**COMMON_FIELDS, **fields}, required=required, binds=binds)


# --- call ---

cdef Shape CALL_NAME = Shape("a protocol or the name of a function (a string)", IS_TEXT, text=TEXT_FUNCTION)


def _call(str protocol, dict fields, tuple required, Position position=None, **extra):
    """A call of a protocol: `call` is its name, `with` its arguments."""
    arguments = Shape("the call's arguments (an object)", IS_OBJECT, fields=fields, required=required, **extra)
    return _task({"call": Field(CALL_NAME, unsupported=f"call: {protocol}"), "with": Field(arguments, position)},
                 ("call", "with"))


cdef Shape VALUE_MAP_OR_WRAPPED = Shape("an object of strings or an expression in ${ }", IS_OBJECT | IS_TEXT,
                                        text=TEXT_POSITION, members=VALUE)
cdef Shape ITERATOR = Shape("an object", IS_OBJECT, binds=BINDS_ITEM, fields={
    "item": VARIABLE,
    "at": VARIABLE,
    "do": Field(TASKS, AT_FOREACH_DO),
    "output": _data("as", AT_FOREACH_OUTPUT_AS),
    "export": _data("as", AT_FOREACH_EXPORT_AS),
})
cdef Shape SUBSCRIPTION = Shape("a subscription: an object with consume", IS_OBJECT, required=("consume",), fields={
    "filter": Field(WRAPPED, AT_SUBSCRIPTION_FILTER),
    "consume": Shape("a consumption policy: an object with amount, while or until", IS_OBJECT, fields={
        "for": Field(DURATION, AT_CALL_DURATION),
        "amount": INTEGER,
        "while": Field(WRAPPED, AT_SUBSCRIPTION_CONSUME),
        "until": Field(WRAPPED, AT_SUBSCRIPTION_CONSUME),
    }, choices=(("amount", "while", "until"),)),
    "foreach": ITERATOR,
})
cdef dict CALLS = {
    "http": _call("http", {
        "method": Field(Shape("an HTTP method (a string)", IS_TEXT, text=TEXT_METHOD), AT_HTTP_METHOD),
        "endpoint": Field(ENDPOINT, AT_HTTP_ENDPOINT),
        "headers": Field(VALUE_MAP_OR_WRAPPED, AT_HTTP_HEADERS),
        "query": Field(VALUE_MAP_OR_WRAPPED, AT_HTTP_QUERY),
        "body": Field(ANYTHING, AT_HTTP_BODY),
        "output": HTTP_OUTPUT,
        "redirect": BOOLEAN,
    }, ("method", "endpoint")),
    "openapi": _call("openapi", {
        "document": Field(RESOURCE, AT_CALL_ENDPOINT),
        "operationId": VALUE,
        "parameters": TEMPLATE_MAP,
        "authentication": AUTHENTICATION,
        "output": HTTP_OUTPUT,
        "redirect": BOOLEAN,
    }, ("document", "operationId"), AT_CALL_WITH),
    "grpc": _call("grpc", {
        "proto": Field(RESOURCE, AT_CALL_ENDPOINT),
        "service": Shape("a gRPC service: an object with name and host", IS_OBJECT, required=("name", "host"), fields={
            "name": VALUE,
            "host": Shape("a host name (a string)", IS_TEXT, text=TEXT_HOST),
            "port": Shape("a port", IS_INTEGER, low=0, high=65535),
            "authentication": AUTHENTICATION,
        }),
        "method": VALUE,
        "arguments": TEMPLATE_MAP,
    }, ("proto", "service", "method"), AT_CALL_WITH),
    "asyncapi": _call("asyncapi", {
        "document": Field(RESOURCE, AT_CALL_ENDPOINT),
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
    }, ("document",), AT_CALL_WITH, choices=(("operation", "channel"), ("message", "subscription")),
       rule=RULE_ASYNCAPI),
    "a2a": _call("a2a", {
        "agentCard": Field(RESOURCE, AT_CALL_ENDPOINT),
        "server": Field(ENDPOINT, AT_CALL_ENDPOINT),
        "method": Shape("an A2A method", IS_TEXT, text=TEXT_WORD, words=(
            "message/send", "message/stream", "tasks/get", "tasks/list", "tasks/cancel", "tasks/resubscribe",
            "tasks/pushNotificationConfig/set", "tasks/pushNotificationConfig/get",
            "tasks/pushNotificationConfig/list", "tasks/pushNotificationConfig/delete",
            "agent/getAuthenticatedExtendedCard")),
        "parameters": Shape("an object with at least one key, or an expression (a string)", IS_OBJECT | IS_TEXT,
                            text=TEXT_VALUE, is_template=True, size_min=1),
    }, ("method",), AT_CALL_WITH, rule=RULE_AGENT),
    "mcp": _call("mcp", {
        "protocolVersion": VALUE,
        "method": Shape("an MCP method", IS_TEXT, text=TEXT_WORD, words=(
            "tools/list", "tools/call", "prompts/list", "prompts/get", "resources/list", "resources/read",
            "resources/templates/list")),
        "parameters": Shape("an object or an expression (a string)", IS_OBJECT | IS_TEXT, text=TEXT_VALUE,
                            is_template=True),
        "timeout": Field(DURATION, AT_CALL_DURATION),
        "transport": Shape("an object with http or stdio", IS_OBJECT, choices=(("http", "stdio"),), fields={
            "http": Shape("an object with endpoint", IS_OBJECT, required=("endpoint",),
                          fields={"endpoint": Field(ENDPOINT, AT_CALL_ENDPOINT), "headers": VALUE_MAP}),
            "stdio": Shape("an object with command", IS_OBJECT, required=("command",),
                           fields={"command": VALUE, "arguments": VALUE_LIST, "environment": VALUE_MAP}),
            "options": VALUE_MAP,
        }),
        "client": Shape("an object with name and version", IS_OBJECT, required=("name", "version"),
                        fields={"name": VALUE, "version": VALUE}),
    }, ("method", "transport"), AT_CALL_WITH, rule=RULE_MCP),
}
cdef Shape CALL_FUNCTION = _task({"call": Field(CALL_NAME, unsupported="call"),
                                  "with": Field(TEMPLATE_MAP, AT_FUNCTION_WITH)}, ("call",))

# --- run ---

# What a task may run, each a kind of its own.
cdef tuple RUN_KINDS = ("container", "script", "shell", "workflow")
# Up to DSL 1.0.2 it was a map, which real documents still have.
cdef Shape ARGUMENTS = Shape("a list of strings", IS_LIST | IS_OBJECT, items=VALUE, members=ANYTHING,
                             rule=RULE_ARGUMENTS)
cdef dict PROCESS_FIELDS = {"stdin": VALUE, "arguments": ARGUMENTS, "environment": TEMPLATE_MAP}
cdef Shape LIFETIME = Shape("a container lifetime: an object with cleanup", IS_OBJECT, required=("cleanup",), fields={
    "cleanup": Shape("a cleanup policy", IS_TEXT, text=TEXT_WORD, words=("never", "always", "eventually")),
    "after": Field(DURATION, AT_RUN_LIFETIME),
}, rule=RULE_LIFETIME)
cdef Shape RUN = Shape("an object with container, script, shell or workflow", IS_OBJECT, fields={
    "await": BOOLEAN,
    "return": Shape("a process output", IS_TEXT, text=TEXT_WORD, words=("stdout", "stderr", "code", "all", "none")),
    "container": Field(Shape("a container: an object with image", IS_OBJECT, required=("image",), fields=dict(
        PROCESS_FIELDS, image=VALUE, name=VALUE, command=VALUE, ports=TEMPLATE_MAP, volumes=TEMPLATE_MAP,
        lifetime=LIFETIME, pullPolicy=Shape("a pull policy", IS_TEXT, text=TEXT_WORD,
                                            words=("ifNotPresent", "always", "never")))),
                       unsupported="run: container"),
    "script": Field(Shape("a script: an object with language and code or source", IS_OBJECT, required=("language",),
                          fields=dict(PROCESS_FIELDS, code=Field(FREE, AT_RUN_CODE),
                                      source=Field(RESOURCE, AT_RUN_SOURCE),
                                      language=Shape("a script language", IS_TEXT, text=TEXT_WORD,
                                                     words=("js", "javascript", "python"))),
                          choices=(("code", "source"),)), unsupported="run: script"),
    "shell": Field(Shape("a shell command: an object with command", IS_OBJECT, required=("command",),
                         fields=dict(PROCESS_FIELDS, command=VALUE)), unsupported="run: shell"),
    "workflow": Field(Shape("a workflow: an object with namespace, name and version", IS_OBJECT,
                            required=("namespace", "name", "version"),
                            fields={"namespace": VALUE, "name": VALUE, "version": VALUE, "input": TEMPLATE_MAP}),
                      unsupported="run: workflow"),
}, choices=(RUN_KINDS,), rule=RULE_RUN)

# --- the other kinds ---

cdef Shape CASE = Shape("a case: an object with then and, but for the default, when", IS_OBJECT, required=("then",),
                        fields={"when": Field(EXPRESSION, AT_SWITCH_WHEN), "then": THEN})
cdef Shape NAMED_CASE = Shape("an object with one key, the name of a case", IS_OBJECT, members=CASE, rule=RULE_NAMED)
cdef Shape CATCH = Shape("an object", IS_OBJECT, binds=BINDS_ERROR, fields={
    "errors": Shape("an object", IS_OBJECT, fields={"with": Field(ERROR_FILTER, AT_CATCH_ERRORS)}),
    "as": VARIABLE,
    "when": Field(EXPRESSION, AT_CATCH_WHEN),
    "exceptWhen": Field(EXPRESSION, AT_CATCH_EXCEPT_WHEN),
    "retry": RETRY_OR_REFERENCE,
    "do": Field(TASKS, AT_CATCH_DO),
    "then": THEN,
})


def _kind(str kind, Shape shape, Position position=None, **others):
    """A task kind by the key that names it."""
    return _task({kind: Field(shape, position, unsupported=kind), **others}, (kind,))


cdef dict TASK_KINDS = {
    "do": _kind("do", TASKS, AT_DO),
    "emit": _kind("emit", Shape("an object with event", IS_OBJECT, required=("event",), fields={
        "event": Shape("an event: an object with `with`", IS_OBJECT, fields={"with": EMITTED_EVENT},
                       required=("with",)),
    }), AT_EMIT),
    "for": _task({
        "for": Field(Shape("a loop: an object with in", IS_OBJECT, required=("in",), fields={
            "each": VARIABLE,
            "in": Field(Shape("an expression (a string) or a list", IS_TEXT | IS_LIST, text=TEXT_POSITION,
                              is_template=True), AT_FOR_IN),
            "at": VARIABLE,
        }), unsupported="for"),
        "while": Field(EXPRESSION, AT_FOR_WHILE),
        "do": Field(TASKS, AT_FOR_DO),
    }, ("for", "do"), BINDS_LOOP),
    "fork": _kind("fork", Shape("an object with branches", IS_OBJECT, required=("branches",), fields={
        "branches": Field(BRANCHES, AT_FORK_BRANCHES), "compete": BOOLEAN})),
    "listen": _kind("listen", Shape("an object with to", IS_OBJECT, required=("to",),
                                    fields={"to": LISTEN_STRATEGY, "read": READ}), foreach=ITERATOR),
    "raise": _kind("raise", Shape("an object with error", IS_OBJECT, required=("error",),
                                  fields={"error": Field(ERROR_OR_REFERENCE, AT_RAISE_ERROR)})),
    "run": _task({"run": Field(RUN, AT_RUN)}, ("run",)),
    "set": _kind("set", Shape("an object with at least one key, or an expression (a string)", IS_OBJECT | IS_TEXT,
                              text=TEXT_POSITION, is_template=True, size_min=1), AT_SET),
    "switch": _kind("switch", Shape("a list of at least one case, each an object with one key, the case's name",
                                    IS_LIST, items=NAMED_CASE, rule=RULE_CASES, size_min=1)),
    "try": _task({"try": Field(TASKS, AT_TRY, unsupported="try"), "catch": CATCH}, ("try", "catch")),
    "wait": _kind("wait", DURATION, AT_WAIT),
    "call": CALL_FUNCTION,
}

# --- what executes ---


cdef int execute(str feature, Shape shape=None) except -1:
    """Accepts a kind, `call: ` and a protocol, or `run: ` and what is run; `call` alone is that of custom functions. A
    kind or a protocol that the DSL does not have comes with its shape."""
    cdef str kind, protocol
    cdef dict shapes
    kind, _, protocol = feature.partition(": ")
    if kind == "run":
        (<Field>RUN.fields[protocol]).unsupported = None
        return 0
    shapes = CALLS if protocol else TASK_KINDS
    if shape is not None:
        shapes[protocol or kind] = shape
    (<Field>(<Shape>shapes[protocol or kind]).fields[kind]).unsupported = None
    return 0


# --- the document ---

# Kinds of tasks by the keys that name them; `composite` is for `do` and `fork`, `all` for every kind.
cdef tuple EXTENDED_WORDS = ("call", "composite", "emit", "for", "listen", "raise", "run", "set", "switch", "try",
                             "wait", "all")
cdef Shape EXTENSION = Shape("an extension: an object with extend", IS_OBJECT, required=("extend",), fields={
    "extend": Shape("a task kind to extend (a string)", IS_TEXT, text=TEXT_EXTENDED, words=EXTENDED_WORDS),
    "when": Field(EXPRESSION, AT_EXTENSION_WHEN),
    "before": Field(TASKS, AT_EXTENSION_TASKS),
    "after": Field(TASKS, AT_EXTENSION_TASKS),
}, rule=RULE_EXTENSION, binds=BINDS_TASK)
cdef Shape USE = Shape("an object", IS_OBJECT, fields={
    "authentications": Field(Shape("an object of authentication policies", IS_OBJECT, members=POLICY),
                             AT_AUTHENTICATION, is_reusable=True),
    "catalogs": Field(Shape("an object of catalogs", IS_OBJECT, members=Shape(
        "a catalog: an object with endpoint", IS_OBJECT, required=("endpoint",),
        fields={"endpoint": Field(ROOT_ENDPOINT, AT_RESOURCE)}))),
    "errors": Field(Shape("an object of errors", IS_OBJECT, members=ERROR), AT_RAISE_ERROR, is_reusable=True),
    "extensions": Shape("a list of extensions, each an object with one key, the extension's name", IS_LIST,
                        items=Shape("an object with one key, the extension's name", IS_OBJECT, members=EXTENSION,
                                    rule=RULE_SINGLE_KEY), rule=RULE_EXTENSIONS),
    "functions": Shape("an object of functions", IS_OBJECT, members=TASK, rule=RULE_FUNCTIONS),
    "retries": Field(Shape("an object of retry policies", IS_OBJECT, members=RETRY), is_reusable=True),
    "secrets": Shape("a list of secret names", IS_LIST, items=FREE),
    "timeouts": Field(Shape("an object of timeouts", IS_OBJECT, members=TIMEOUT), AT_TIMEOUT, is_reusable=True),
})
cdef Shape SCHEDULE = Shape("an object with every, cron, after or on", IS_OBJECT, rule=RULE_SCHEDULE, fields={
    "every": Field(DURATION, AT_SCHEDULE),
    "cron": Shape("a cron expression (a string)", IS_TEXT, text=TEXT_CRON),
    "after": Field(DURATION, AT_SCHEDULE),
    "on": SCHEDULE_STRATEGY,
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
    "input": _data("from", AT_WORKFLOW_INPUT_FROM),
    "use": USE,
    "do": Field(TASKS, AT_DO),
    "timeout": Field(TIMEOUT_OR_REFERENCE, AT_WORKFLOW_TIMEOUT),
    "output": _data("as", AT_WORKFLOW_OUTPUT_AS),
    "schedule": SCHEDULE,
    "evaluate": Shape("an object", IS_OBJECT, fields={
        "language": Shape("an expression language (a string)", IS_TEXT, text=TEXT_LANGUAGE),
        "mode": Shape("strict or loose", IS_TEXT, text=TEXT_WORD, words=("strict", "loose")),
    }),
})
