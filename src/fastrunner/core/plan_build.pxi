"""Stage 2, compile: from a checked document to a plan.

Rules: the validator has passed the document, so what is impossible there is asserted here, not reported. Fields that
are expressions by type take bare and wrapped text; values are expressions only when wrapped (strict) or when they
compile and evaluate (loose). Scopes are lexical: a variable becomes a number of scopes outwards, never a name.
"""

import re as _re

from fastrunner.limits import DATA_DEPTH_MAX as _PLAN_DATA_DEPTH_MAX

# `.a.b[0]`, `$item.id`: expressions that pick a part of their data. $task and $workflow hold the document, which is
# not checked as data is.
cdef object PATH_PATTERN = _re.compile(r"(?:\.|\$(?!task\b|workflow\b)\w+)?(?:\.?\[\d+\]|\.[A-Za-z_]\w*)*")
# More retries than anyone waits for, and far from the end of the integers that count them.
cdef int RETRIES_MAX = 1_000_000_000
cdef tuple NO_SCOPES = ()


cdef str escape_pointer(str name):
    return name.replace("~", "~0").replace("/", "~1")


cdef Template constant_template(object value):
    cdef Template template = Template.__new__(Template)
    template.kind = TEMPLATE_CONSTANT
    template.constant = value
    return template


cdef UriTemplate parse_uri_template(str text):
    """Splits a URI into literals and variables; the validator has refused all but simple expansion."""
    cdef list parts = []
    cdef Py_ssize_t start = 0, opening, closing
    cdef UriTemplate template = UriTemplate.__new__(UriTemplate)
    while True:
        opening = text.find("{", start)
        closing = text.find("}", opening) if opening >= 0 else -1
        if closing < 0:
            break
        if opening > start:
            parts.append(text[start:opening])
        parts.append((text[opening + 1:closing],))
        start = closing + 1
    if start < len(text):
        parts.append(text[start:])
    template.parts = tuple(parts)
    return template


cdef class PlanBuilder:
    """Builds one plan. `scopes` is a tuple of name pairs, outermost first; the second name may be None."""

    cdef Document document
    cdef dict use
    cdef bint is_loose
    cdef Plan plan

    def __cinit__(self, Document document):
        self.document = document
        self.use = document.root.get("use") or {}
        self.is_loose = (document.root.get("evaluate") or {}).get("mode") == "loose"
        self.plan = Plan.__new__(Plan)

    cdef Plan build(self):
        cdef dict root = self.document.root
        cdef Plan plan = self.plan
        cdef dict facts = root["document"]
        cdef dict section
        plan.document = root
        plan.dsl, plan.namespace = facts["dsl"], facts["namespace"]
        plan.name, plan.version = facts["name"], facts["version"]
        plan.tasks = []
        section = root.get("input") or {}
        plan.input_schema = self.build_schema(section.get("schema"))
        plan.input_from = self.build_slot(section.get("from"), NO_SCOPES)
        section = root.get("output") or {}
        plan.output_as = self.build_slot(section.get("as"), NO_SCOPES)
        plan.output_schema = self.build_schema(section.get("schema"))
        plan.timeout = self.build_timeout(root.get("timeout"), NO_SCOPES)
        self.build_workflow_events()
        plan.root = self.build_list(root["do"], "/do", NO_SCOPES)
        return plan

    cdef int build_workflow_events(self) except -1:
        cdef Plan plan = self.plan
        cdef str name = plan.name
        plan.event_started = EventParts("workflow_started", name, "", "running", f"Workflow {name} started", 0, "")
        plan.event_validating = EventParts(
            "workflow_validating", name, "", "running", f"Validating workflow {name}", 0, ""
        )
        plan.event_validated = EventParts("workflow_validated", name, "", "running", f"Workflow {name} is valid", 0, "")
        plan.event_paused = EventParts("workflow_paused", name, "", "paused", f"Workflow {name} paused", 0, "")
        plan.event_resumed = EventParts("workflow_resumed", name, "", "running", f"Workflow {name} resumed", 0, "")
        plan.event_completed = EventParts(
            "workflow_completed", name, "", "completed", f"Workflow {name} completed", 0, ""
        )
        plan.event_failed = EventParts("workflow_failed", name, "", "failed", "", 0, "")
        plan.event_cancelled = EventParts(
            "workflow_cancelled", name, "", "cancelled", f"Workflow {name} cancelled", 0, ""
        )
        return 0

    # --- values ---

    cdef Expression build_expression(self, str text, tuple scopes):
        """An expression-typed field, bare or wrapped."""
        cdef object inner = expression_text(text)
        cdef str source = text.strip() if inner is None else inner
        return self.bind(self.program_of(source), source, scopes)

    cdef Program program_of(self, str source):
        """The program of a text, compiled once for a document. Raises ExpressionProblem."""
        cdef object program = self.document.programs.get(source)
        if program is None:
            program = compile_expression(source)
            self.document.programs[source] = program
        return program

    cdef Expression bind(self, Program program, str source, tuple scopes):
        cdef Expression expression = Expression.__new__(Expression)
        cdef list codes = []
        for name in program.arguments:
            codes.append(self.argument_code(name, scopes))
        expression.program = program
        expression.sources = bytes(codes)
        expression.is_path = PATH_PATTERN.fullmatch(source.strip()) is not None
        return expression

    cdef int argument_code(self, str name, tuple scopes) except -1:
        """Where a variable comes from; the innermost scope wins. Raises KeyError for an unknown one."""
        cdef int depth = 0
        for first, second in reversed(scopes):
            if name == first:
                return ARGUMENT_SCOPED + 2 * depth
            if name == second:
                return ARGUMENT_SCOPED + 2 * depth + 1
            depth += 1
        return RUNNER_ARGUMENTS[name]

    cdef Template build_template(self, object value, tuple scopes):
        """A value-typed field."""
        cdef Template template
        cdef tuple parts
        if isinstance(value, str):
            return self.build_text(value, scopes)
        if not isinstance(value, (dict, list)):
            return constant_template(json_safe(value, 0))
        parts = tuple([
            self.build_template(part, scopes) for part in (value.values() if isinstance(value, dict) else value)
        ])
        if all([(<Template> part).kind == TEMPLATE_CONSTANT for part in parts]):
            return constant_template(json_safe(value, _PLAN_DATA_DEPTH_MAX))
        template = Template.__new__(Template)
        template.kind = TEMPLATE_OBJECT if isinstance(value, dict) else TEMPLATE_ARRAY
        template.keys = tuple(value) if isinstance(value, dict) else None
        template.parts = parts
        return template

    cdef Template build_text(self, str text, tuple scopes):
        cdef object inner = expression_text(text)
        cdef Expression expression
        if self.is_loose:
            expression = self.build_candidate(text, text.strip() if inner is None else inner, scopes)
        elif inner is not None:
            expression = self.build_expression(text, scopes)
        else:
            expression = None
        return constant_template(text) if expression is None else self.expression_template(expression)

    cdef Expression build_candidate(self, str text, str source, tuple scopes):
        """In loose mode: the expression a string may be, else None."""
        cdef Expression expression
        try:
            expression = self.bind(self.program_of(source), source, scopes)
        except (ExpressionProblem, KeyError):
            return None
        expression.literal = text
        return expression

    cdef Template expression_template(self, Expression expression):
        cdef Template template = Template.__new__(Template)
        template.kind = TEMPLATE_EXPRESSION
        template.expression = expression
        return template

    cdef Template build_slot(self, object value, tuple scopes):
        """`from`, `as`, `in`, `set`: a string is an expression, anything else a template; None without a value."""
        if value is None:
            return None
        if isinstance(value, str):
            return self.expression_template(self.build_expression(value, scopes))
        return self.build_template(value, scopes)

    cdef Expression build_condition(self, object value, tuple scopes):
        return None if value is None else self.build_expression(value, scopes)

    cdef Schema build_schema(self, object section):
        return None if section is None else Schema(section["document"])

    cdef Duration build_duration(self, object value, tuple scopes):
        cdef Duration duration
        if value is None:
            return None
        duration = Duration.__new__(Duration)
        if isinstance(value, str) and expression_text(value) is not None:
            duration.expression = self.build_expression(value, scopes)
        else:
            duration.ms = duration_ms(value)
        return duration

    cdef Duration build_timeout(self, object value, tuple scopes):
        if value is None:
            return None
        if isinstance(value, str):
            value = self.use["timeouts"][value]
        return self.build_duration(value["after"], scopes)

    # --- tasks ---

    cdef TaskList build_list(self, list items, str pointer, tuple scopes):
        cdef TaskList body = TaskList.__new__(TaskList)
        cdef list tasks = []
        cdef list names = [next(iter(item)) for item in items]
        cdef Py_ssize_t position
        for position in range(len(items)):
            tasks.append(self.build_task(names, items[position], position, pointer, scopes))
        body.tasks = tuple(tasks)
        body.count = len(tasks)
        return body

    cdef TaskNode build_task(self, list names, dict item, int position, str pointer, tuple scopes):
        cdef str name = names[position]
        cdef dict definition = item[name]
        cdef int index = len(self.plan.tasks)
        cdef TaskNode task
        cdef dict section
        cdef str reference = f"{pointer}/{position}/{escape_pointer(name)}"
        self.plan.tasks.append(None)
        task = self.build_kind(definition, names, position, reference, scopes)
        self.plan.tasks[index] = task
        task.index, task.name, task.reference, task.definition = index, name, reference, definition
        task.following = position + 1 if position + 1 < len(names) else POSITION_DONE
        task.then = self.target(definition.get("then"), names, position)
        task.condition = self.build_condition(definition.get("if"), scopes)
        section = definition.get("input") or {}
        task.input_schema = self.build_schema(section.get("schema"))
        task.input_from = self.build_slot(section.get("from"), scopes)
        section = definition.get("output") or {}
        task.output_as = self.build_slot(section.get("as"), scopes)
        task.output_schema = self.build_schema(section.get("schema"))
        section = definition.get("export") or {}
        task.export_as = self.build_slot(section.get("as"), scopes)
        task.export_schema = self.build_schema(section.get("schema"))
        task.timeout = self.build_timeout(definition.get("timeout"), scopes)
        task.is_plain = not any([definition.get(key) for key in ("if", "input", "output", "export", "timeout")])
        self.build_task_events(task)
        return task

    cdef int build_task_events(self, TaskNode task) except -1:
        cdef str workflow = self.plan.name
        cdef str name = task.name
        cdef str reference = task.reference
        task.event_started = EventParts("task_started", workflow, name, "running", f"Task {name} started", 0, reference)
        task.event_retry = EventParts("task_retry", workflow, name, "running", "", 0, reference)
        task.event_completed = EventParts(
            "task_completed", workflow, name, "completed", f"Task {name} completed", 100, reference
        )
        task.event_failed = EventParts("task_failed", workflow, name, "failed", "", 0, reference)
        return 0

    cdef int target(self, object then, list names, int position) except? -100:
        """The position a directive leads to."""
        if then is None or then == "continue":
            return position + 1 if position + 1 < len(names) else POSITION_DONE
        if then == "exit":
            return POSITION_EXIT
        if then == "end":
            return POSITION_END
        return names.index(then)

    cdef TaskNode build_kind(self, dict definition, list names, int position, str reference, tuple scopes):
        if "set" in definition:
            return self.build_set(definition, scopes)
        if "switch" in definition:
            return self.build_switch(definition, names, position, scopes)
        if "for" in definition:
            return self.build_for(definition, reference, scopes)
        if "do" in definition:
            return self.build_do(definition, reference, scopes)
        if "fork" in definition:
            return self.build_fork(definition, reference, scopes)
        if "try" in definition:
            return self.build_try(definition, names, position, reference, scopes)
        if "raise" in definition:
            return self.build_raise(definition, scopes)
        if "wait" in definition:
            return self.build_wait(definition, scopes)
        assert definition["call"] == "http", "the validator refuses what does not execute"
        return self.build_call_http(definition["with"], scopes)

    cdef SetNode build_set(self, dict definition, tuple scopes):
        cdef SetNode task = SetNode.__new__(SetNode)
        task.kind = KIND_SET
        task.value = self.build_slot(definition["set"], scopes)
        return task

    cdef DoNode build_do(self, dict definition, str reference, tuple scopes):
        cdef DoNode task = DoNode.__new__(DoNode)
        task.kind = KIND_DO
        task.body = self.build_list(definition["do"], reference + "/do", scopes)
        return task

    cdef SwitchNode build_switch(self, dict definition, list names, int position, tuple scopes):
        cdef SwitchNode task = SwitchNode.__new__(SwitchNode)
        cdef list conditions = [], targets = []
        task.kind = KIND_SWITCH
        task.default = self.target(definition.get("then"), names, position)
        for item in definition["switch"]:
            (case,) = item.values()
            if case.get("when") is None:
                task.default = self.target(case["then"], names, position)
            else:
                conditions.append(self.build_expression(case["when"], scopes))
                targets.append(self.target(case["then"], names, position))
        task.conditions = tuple(conditions)
        task.targets = tuple(targets)
        return task

    cdef ForNode build_for(self, dict definition, str reference, tuple scopes):
        cdef ForNode task = ForNode.__new__(ForNode)
        cdef dict loop = definition["for"]
        cdef tuple inner = scopes + ((loop.get("each") or "item", loop.get("at") or "index"),)
        task.kind = KIND_FOR
        task.collection = self.build_slot(loop["in"], scopes)
        task.condition = self.build_condition(definition.get("while"), inner)
        task.body = self.build_list(definition["do"], reference + "/do", inner)
        return task

    cdef ForkNode build_fork(self, dict definition, str reference, tuple scopes):
        cdef ForkNode task = ForkNode.__new__(ForkNode)
        cdef list branches = []
        cdef TaskList branch
        cdef Py_ssize_t position
        cdef list items = definition["fork"]["branches"]
        task.kind = KIND_FORK
        task.compete = bool(definition["fork"].get("compete"))
        for position, item in enumerate(items):
            branch = TaskList.__new__(TaskList)
            branch.tasks = (self.build_branch(item, position, reference + "/fork/branches", scopes),)
            branch.count = 1
            branches.append(branch)
        task.branches = tuple(branches)
        return task

    cdef TaskNode build_branch(self, dict item, int position, str pointer, tuple scopes):
        """A branch has no siblings to go to: `end` ends the workflow, everything else the branch."""
        cdef list names = [None] * position + list(item)
        cdef TaskNode task = self.build_task(names, item, position, pointer, scopes)
        task.following = POSITION_DONE
        assert task.then < 0, "the validator refuses names in the `then` of a branch"
        return task

    cdef RaiseNode build_raise(self, dict definition, tuple scopes):
        cdef RaiseNode task = RaiseNode.__new__(RaiseNode)
        error = definition["raise"]["error"]
        task.kind = KIND_RAISE
        task.error = self.build_template(self.use["errors"][error] if isinstance(error, str) else error, scopes)
        return task

    cdef WaitNode build_wait(self, dict definition, tuple scopes):
        cdef WaitNode task = WaitNode.__new__(WaitNode)
        task.kind = KIND_WAIT
        task.duration = self.build_duration(definition["wait"], scopes)
        return task

    cdef TryNode build_try(self, dict definition, list names, int position, str reference, tuple scopes):
        cdef TryNode task = TryNode.__new__(TryNode)
        cdef dict catch = definition["catch"]
        cdef tuple inner = scopes + ((catch.get("as") or "error", None),)
        task.kind = KIND_TRY
        task.body = self.build_list(definition["try"], reference + "/try", scopes)
        task.filter = tuple([
            ("detail" if key == "details" else key, value)
            for key, value in ((catch.get("errors") or {}).get("with") or {}).items()
        ])
        task.when = self.build_condition(catch.get("when"), inner)
        task.except_when = self.build_condition(catch.get("exceptWhen"), inner)
        task.retry = self.build_retry(catch.get("retry"), inner, scopes)
        if catch.get("do") is not None:
            task.handler = self.build_list(catch["do"], reference + "/catch/do", inner)
        task.has_catch_then = catch.get("then") is not None
        task.catch_then = self.target(catch.get("then"), names, position)
        return task

    cdef RetryPolicy build_retry(self, object definition, tuple scopes, tuple around):
        """A policy sees the error; its limits only what stands around the `try`."""
        cdef RetryPolicy retry
        cdef dict limit, attempt, jitter, backoff
        if definition is None:
            return None
        if isinstance(definition, str):
            definition = self.use["retries"][definition]
        retry = RetryPolicy.__new__(RetryPolicy)
        retry.when = self.build_condition(definition.get("when"), scopes)
        retry.except_when = self.build_condition(definition.get("exceptWhen"), scopes)
        retry.delay = self.build_duration(definition.get("delay"), scopes)
        backoff = definition.get("backoff") or {}
        if "exponential" in backoff:
            retry.backoff = BACKOFF_EXPONENTIAL
        elif "linear" in backoff:
            retry.backoff = BACKOFF_LINEAR
        else:
            retry.backoff = BACKOFF_CONSTANT
        jitter = definition.get("jitter") or {}
        retry.jitter_from = self.build_duration(jitter.get("from"), scopes)
        retry.jitter_to = self.build_duration(jitter.get("to"), scopes)
        limit = definition.get("limit") or {}
        attempt = limit.get("attempt") or {}
        retry.count_max = -1
        if attempt.get("count") is not None:
            retry.count_max = min(max(0, int(attempt["count"])), <object> RETRIES_MAX)
        retry.attempt_duration = self.build_duration(attempt.get("duration"), around)
        retry.total_duration = self.build_duration(limit.get("duration"), around)
        return retry

    cdef CallHttpNode build_call_http(self, dict arguments, tuple scopes):
        cdef CallHttpNode task = CallHttpNode.__new__(CallHttpNode)
        endpoint = arguments["endpoint"]
        cdef str uri = endpoint["uri"] if isinstance(endpoint, dict) else endpoint
        task.kind = KIND_CALL_HTTP
        task.method = arguments["method"].upper()
        if expression_text(uri) is None:
            task.uri = parse_uri_template(uri)
        else:
            task.uri_expression = self.build_expression(uri, scopes)
        if arguments.get("headers") is not None:
            task.headers = self.build_template(arguments["headers"], scopes)
        if arguments.get("query") is not None:
            task.query = self.build_template(arguments["query"], scopes)
        if "body" in arguments:
            task.body = self.build_template(arguments["body"], scopes)
        task.output = arguments.get("output") or "content"
        task.redirect = bool(arguments.get("redirect"))
        return task


def compile(text):
    """A document as an immutable plan. Raises InvalidWorkflow."""
    cdef Document document = read_document(text)
    cdef list problems = check_document(document)
    if problems:
        raise InvalidWorkflow(problems)
    return PlanBuilder(document).build()
