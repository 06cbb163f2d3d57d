"""Stage 2, compile: from a checked document to a plan, a step at a time.

Rules: the validator has passed the document, so what is impossible there is asserted here, not reported. Which
variables an expression sees is the table of positions' to say, here as in the validator. Fields that are expressions by
type take bare and wrapped text; values are expressions only when wrapped (strict) or when they compile and evaluate
(loose). Scopes are lexical: a variable becomes a number of scopes outwards, never a name. Tasks are numbered in
document order: snapshots know them by their numbers.
"""

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cimport cython

import re as _re
from hashlib import sha256 as _sha256

from fastrunner._jq import ExpressionProblem

from fastrunner._jq cimport Program

# `.a.b[0]`, `$item.id`: expressions that pick a part of their data. $task and $workflow hold the document, which is
# not checked as data is; nor are secrets.
cdef object PATH_PATTERN = _re.compile(
    r"(?:\.|\$(?!task\b|workflow\b|secrets\b|authorization\b)\w+)?(?:\.?\[\d+\]|\.[A-Za-z_]\w*)*"
)

# What arguments of an effect may read beside the task's input.
cdef enum:
    READS_CONTEXT = 1
    READS_TASK = 2
    READS_WORKFLOW = 4
    READS_SCOPE = 8
    READS_AUTHORIZATION = 16


cdef Template constant_template(Measure* measure, object value):
    cdef Template template = Template.__new__(Template)
    template.kind = TEMPLATE_CONSTANT
    measure.is_plain = True
    template.constant = json_safe(measure, value)
    if template.constant is not value:
        measure.is_plain = False
        template.constant_before = json_safe(measure, value)
    return template


cdef Template expression_template(Expression expression):
    cdef Template template = Template.__new__(Template)
    template.kind = TEMPLATE_EXPRESSION
    template.expression = expression
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


cdef int read_bit(int code) noexcept:
    """What an argument reads, as a bit."""
    if code >= ARGUMENT_SCOPED:
        return READS_SCOPE
    if code == ARGUMENT_CONTEXT:
        return READS_CONTEXT
    if code == ARGUMENT_TASK:
        return READS_TASK
    if code == ARGUMENT_AUTHORIZATION:
        return READS_AUTHORIZATION
    return READS_WORKFLOW if code == ARGUMENT_WORKFLOW else 0


cdef bytes digest_of(str text):
    """SHA-256 of a text in UTF-8, without a copy of it."""
    cdef Py_ssize_t size = 0
    cdef const unsigned char* data = <const unsigned char*> PyUnicode_AsUTF8AndSize(text, &size)
    return _sha256(<const unsigned char[:size]> data).digest()


cdef bytes digest_of_document(Document document):
    """SHA-256 of a document's text; of one with texts from elsewhere, over the hashes of all texts and their names."""
    cdef bytes own = digest_of(document.text)
    if not document.texts:
        return own
    return _sha256(own + b"".join([
        digest_of(reference) + digest_of(document.texts[reference]) for reference in sorted(document.texts)
    ])).digest()


@cython.final
cdef class Cursor:
    """How far one list of tasks has been built."""

    cdef TaskList body
    cdef list items
    cdef list names
    cdef list tasks
    cdef str pointer
    cdef int first
    """The position of the first item: branches are lists of one, numbered through."""
    cdef bint is_branch
    cdef bint is_function
    """Its one task is known by its name alone."""
    cdef bint is_loose
    cdef object origin
    """The ExternalResource that its tasks come from; None: the workflow."""
    cdef bint is_extended
    cdef Bindings bindings


@cython.internal
@cython.final
cdef class Description:
    """What is known of a service before anything runs: where a constant URL leads, and maybe the text there."""

    cdef UriTemplate resource
    cdef str text
    cdef bytes digest


@cython.final
cdef class PlanBuilder:
    """Builds one plan, a task at a time."""

    def __cinit__(self, Document document):
        self.document = document
        # The validator counted what the document costs.
        document.is_paid = True
        self.use = document.root.get("use") or {}
        self.is_loose = is_loose_mode(document.root)
        self.plan = Plan.__new__(Plan, KEY)
        self.plan.behaviour = behaviour_now()
        self.plan.secrets = declared_secrets(self.use)
        self.plan.namespaces_run = frozenset()
        self.measure.depth_max = <int> self.plan.behaviour.data_depth_max
        self.measure.size_bytes_max = self.plan.behaviour.data_size_bytes_max
        self.cursors = []
        self.opened = []

    cdef int begin(self) except -1:
        """All of the plan but its tasks."""
        cdef dict root = self.document.root
        cdef Plan plan = self.plan
        cdef dict facts = root["document"]
        cdef dict section
        plan.document = root
        plan.digest = digest_of_document(self.document)
        plan.resources = self.document.texts
        plan.is_pinned = self.document.is_pinned
        plan.dsl, plan.namespace = facts["dsl"], facts["namespace"]
        plan.name, plan.version = facts["name"], facts["version"]
        plan.tasks = []
        section = root.get("input") or {}
        plan.input_schema = self.schema(section.get("schema"))
        plan.input_from = self.slot(AT_WORKFLOW_INPUT_FROM, section.get("from"), NO_BINDINGS)
        section = root.get("output") or {}
        plan.output_as = self.slot(AT_WORKFLOW_OUTPUT_AS, section.get("as"), NO_BINDINGS)
        plan.output_schema = self.schema(section.get("schema"))
        plan.timeout = self.timeout(AT_WORKFLOW_TIMEOUT, root.get("timeout"), NO_BINDINGS)
        section = root.get("schedule") or {}
        plan.schedule_every = self.duration(AT_SCHEDULE, section.get("every"), NO_BINDINGS)
        plan.schedule_after = self.duration(AT_SCHEDULE, section.get("after"), NO_BINDINGS)
        add_workflow_events(plan)
        if self.use.get("extensions"):
            self.extensions = sources_of_extensions(self)
            self.is_extended = True
        plan.root = self.tasks(AT_DO, root["do"], "/do", NO_BINDINGS)
        self.cursors = self.opened
        self.opened = []
        return 0

    cdef bint step(self, Py_ssize_t budget) except -1:
        """Builds up to `budget` tasks; True once the plan is whole."""
        cdef Cursor cursor
        if self.plan.tasks is None:
            self.begin()
        while self.cursors and budget > 0:
            cursor = <Cursor> self.cursors[len(self.cursors) - 1]
            if len(cursor.tasks) == len(cursor.items):
                cursor.body.tasks = tuple(cursor.tasks)
                self.cursors.pop()
            else:
                build_task(self, cursor)
                # What a task has in it comes before its next sibling.
                self.cursors.extend(reversed(self.opened))
                self.opened = []
            budget -= 1
        return not self.cursors

    # --- values ---

    cdef Expression expression(self, Position position, object text, Bindings bindings):
        """An expression-typed field, bare or wrapped."""
        cdef object inner = expression_text(text)
        return self.bind(position, (<str> text).strip() if inner is None else inner, bindings)

    cdef Expression condition(self, Position position, object value, Bindings bindings):
        return None if value is None else self.expression(position, value, bindings)

    cdef Expression bind(self, Position position, str source, Bindings bindings):
        """Raises ExpressionProblem, or KeyError for a variable that has no value there."""
        cdef Expression expression = Expression.__new__(Expression)
        cdef Program program = program_of(self.document, source)
        cdef tuple scopes = bindings.at(position)
        cdef list codes = []
        cdef int code
        for name in program.arguments:
            code = argument_code(position, scopes, name)
            if code < 0:
                raise KeyError(name)
            codes.append(code)
            self.reads |= read_bit(code)
        expression.program = program
        expression.sources = bytes(codes)
        expression.is_own = position.is_own
        expression.is_path = PATH_PATTERN.fullmatch(source.strip()) is not None
        return expression

    cdef Template template(self, Position position, object value, Bindings bindings):
        """A value-typed field."""
        cdef Template template
        cdef tuple parts
        if isinstance(value, str):
            return self.text_template(position, value, bindings)
        if not isinstance(value, (dict, list)):
            return constant_template(&self.measure, value)
        parts = tuple([
            self.template(position, part, bindings) for part in (value.values() if isinstance(value, dict) else value)
        ])
        if all([(<Template> part).kind == TEMPLATE_CONSTANT for part in parts]):
            return constant_template(&self.measure, value)
        template = Template.__new__(Template)
        template.kind = TEMPLATE_OBJECT if isinstance(value, dict) else TEMPLATE_ARRAY
        template.keys = tuple(value) if isinstance(value, dict) else None
        template.parts = parts
        return template

    cdef Template text_template(self, Position position, str text, Bindings bindings):
        cdef Expression expression = None
        if self.is_loose:
            expression = self.candidate(position, text, bindings)
        elif expression_text(text) is not None:
            expression = self.expression(position, text, bindings)
        return constant_template(&self.measure, text) if expression is None else expression_template(expression)

    cdef Expression candidate(self, Position position, str text, Bindings bindings):
        """In loose mode: the expression a string may be, else None: also where a variable of it has no value."""
        cdef Expression expression
        try:
            expression = self.expression(position, text, bindings)
        except (ExpressionProblem, KeyError):
            return None
        for name in expression.program.arguments if expression_text(text) is None else ():
            if not is_provided(self.document, RUNNER_ARGUMENTS.get(name, ARGUMENT_SCOPED)):
                return None
        expression.literal = text
        return expression

    cdef Template slot(self, Position position, object value, Bindings bindings):
        """`from`, `as`, `in`, `set`: a string is an expression, anything else a template; None without a value."""
        if value is None:
            return None
        if isinstance(value, str):
            return expression_template(self.expression(position, value, bindings))
        return self.template(position, value, bindings)

    cdef Schema schema(self, object section):
        cdef ExternalResource resource
        if section is None:
            return None
        if "document" in section:
            return compiled_schema(self.document, section["document"])
        resource = resource_of(use_here(self), self.origin, "schema", section["resource"])
        return compiled_schema(self.document, self.document.schemas_elsewhere[resource.reference])

    cdef Duration duration(self, Position position, object value, Bindings bindings):
        cdef Duration duration
        if value is None:
            return None
        duration = Duration.__new__(Duration)
        if isinstance(value, str) and expression_text(value) is not None:
            duration.expression = self.expression(position, value, bindings)
        else:
            duration.ms = duration_ms(value)
        return duration

    cdef Duration timeout(self, Position position, object value, Bindings bindings):
        if value is None:
            return None
        if isinstance(value, str):
            value = self.use["timeouts"][value]
        return self.duration(position, value["after"], bindings)

    cdef UriTemplate uri(self, Position position, object value, Bindings bindings):
        """An endpoint: a URI template or an expression, bare or as the `uri` of an object."""
        cdef UriTemplate template
        cdef str text = value["uri"] if isinstance(value, dict) else value
        if expression_text(text) is None:
            return parse_uri_template(text)
        template = UriTemplate.__new__(UriTemplate)
        template.expression = self.expression(position, text, bindings)
        return template

    # --- tasks ---

    cdef TaskList tasks(self, Position position, list items, str pointer, Bindings bindings):
        """A list of tasks, to be built after the task that holds it."""
        cdef Cursor cursor = Cursor.__new__(Cursor)
        cursor.body = TaskList.__new__(TaskList)
        cursor.body.count = len(items)
        cursor.items = items
        cursor.names = [next(iter(item)) for item in items]
        cursor.tasks = []
        cursor.pointer = pointer
        cursor.is_loose = self.is_loose
        cursor.origin = self.origin
        cursor.is_extended = self.is_extended
        cursor.bindings = bindings_of(bindings.at(position))
        self.opened.append(cursor)
        return cursor.body

    cdef TaskList branch(self, Position position, dict item, int number, str pointer, Bindings bindings):
        """A branch has no siblings to go to: `end` ends the workflow, everything else the branch."""
        cdef TaskList body = self.tasks(position, [item], pointer, bindings)
        cdef Cursor cursor = <Cursor> self.opened[len(self.opened) - 1]
        cursor.first = number
        cursor.is_branch = True
        return body

    cdef int add_common(self, TaskNode task, dict definition, Bindings bindings) except -1:
        """What tasks of all kinds may have."""
        cdef dict section
        task.condition = self.condition(AT_IF, definition.get("if"), bindings)
        section = definition.get("input") or {}
        task.input_schema = self.schema(section.get("schema"))
        task.input_from = self.slot(AT_INPUT_FROM, section.get("from"), bindings)
        section = definition.get("output") or {}
        task.output_as = self.slot(AT_OUTPUT_AS, section.get("as"), bindings)
        task.output_schema = self.schema(section.get("schema"))
        section = definition.get("export") or {}
        task.export_as = self.slot(AT_EXPORT_AS, section.get("as"), bindings)
        task.export_schema = self.schema(section.get("schema"))
        task.timeout = self.timeout(AT_TIMEOUT, definition.get("timeout"), bindings)
        task.is_plain = not any([definition.get(key) for key in ("if", "input", "output", "export", "timeout")])
        add_task_events(task, self.plan.name)
        return 0


cdef dict use_here(PlanBuilder builder):
    """What the task that is being built may name: one from elsewhere knows nothing of the workflow's `use`."""
    return builder.document.use if builder.origin is None else {}


cdef object located_endpoint(PlanBuilder builder, object endpoint):
    """An endpoint with a constant URI completed, and the policy of the catalog that it lies in."""
    cdef str text = endpoint["uri"] if isinstance(endpoint, dict) else endpoint
    cdef ExternalResource found
    if builder.origin is None or "://" in text or "{" in text:
        return endpoint
    found = located(builder.origin, "script", text, policy_of({}, endpoint))
    return {"uri": found.url, "authentication": found.authentication}


cdef Description described_by(PlanBuilder builder, dict resource):
    """What the plan has of an external resource; None if its URL is not constant."""
    cdef ExternalResource found = description_of(use_here(builder), builder.origin, resource)
    cdef dict texts = builder.document.texts
    cdef Description description
    if found is None:
        return None
    description = Description.__new__(Description)
    description.resource = parse_uri_template(texts.get(found.location_reference, found.url))
    description.text = texts.get(found.reference)
    if description.text is not None:
        description.digest = digest_of(description.text)
    return description


cdef int build_task(PlanBuilder builder, Cursor cursor) except -1:
    """The next task of a list."""
    cdef int position = <int> len(cursor.tasks)
    cdef str name = cursor.names[position]
    cdef dict definition = cursor.items[position][name]
    cdef Siblings siblings = Siblings.__new__(Siblings)
    cdef list extensions
    cdef TaskNode task
    siblings.names = cursor.names
    siblings.position = position
    place = "" if cursor.is_function else f"/{cursor.first + position}"
    siblings.reference = f"{cursor.pointer}{place}/{escape_pointer(name)}"
    siblings.bindings = cursor.bindings
    builder.is_loose = cursor.is_loose
    builder.is_extended = cursor.is_extended
    if cursor.is_extended:
        extensions = builder.extensions.get(extension_word(definition))
        siblings.is_extended = extensions is not None
    task = build_node(builder, cursor, siblings, name, definition)
    if siblings.is_extended:
        task = surround(builder, cursor, siblings, task, extensions)
    cursor.tasks.append(task)
    return 0


cdef TaskNode build_node(PlanBuilder builder, Cursor cursor, Siblings siblings, str name, dict definition):
    """A task by itself."""
    cdef TaskKind kind = <TaskKind?> KINDS_BY_FEATURE[feature_of(definition)]
    cdef TaskNode task
    cdef int index = <int> len(builder.plan.tasks)
    builder.plan.tasks.append(None)
    builder.reads = 0
    builder.origin = cursor.origin
    task = kind.build(builder, definition, siblings)
    task.reads, task.scopes = builder.reads, <int> len(cursor.bindings.own)
    task.kind, task.index, task.name, task.reference = kind, index, name, siblings.reference
    task.definition = definition
    task.following = POSITION_DONE if cursor.is_branch else siblings.target(None)
    task.then = siblings.target(definition.get("then"))
    assert task.then < 0 or not cursor.is_branch, "the validator refuses names in the `then` of a branch"
    builder.add_common(task, definition, cursor.bindings)
    builder.plan.tasks[index] = task
    return task


cdef int add_workflow_events(Plan plan) except -1:
    cdef str name = plan.name
    plan.event_started = EventParts("workflow_started", name, "", "running", f"Workflow {name} started", 0, "")
    plan.event_validating = EventParts("workflow_validating", name, "", "running", f"Validating workflow {name}", 0, "")
    plan.event_validated = EventParts("workflow_validated", name, "", "running", f"Workflow {name} is valid", 0, "")
    plan.event_paused = EventParts("workflow_paused", name, "", "paused", f"Workflow {name} paused", 0, "")
    plan.event_resumed = EventParts("workflow_resumed", name, "", "running", f"Workflow {name} resumed", 0, "")
    plan.event_completed = EventParts("workflow_completed", name, "", "completed", f"Workflow {name} completed", 0, "")
    plan.event_failed = EventParts("workflow_failed", name, "", "failed", "", 0, "")
    plan.event_cancelled = EventParts("workflow_cancelled", name, "", "cancelled", f"Workflow {name} cancelled", 0, "")
    return 0


cdef int add_task_events(TaskNode task, str workflow) except -1:
    cdef str name = task.name
    cdef str reference = task.reference
    task.event_started = EventParts("task_started", workflow, name, "running", f"Task {name} started", 0, reference)
    task.event_retry = EventParts("task_retry", workflow, name, "running", "", 0, reference)
    task.event_completed = EventParts(
        "task_completed", workflow, name, "completed", f"Task {name} completed", 100, reference
    )
    task.event_failed = EventParts("task_failed", workflow, name, "failed", "", 0, reference)
    return 0


cdef str what_runs(dict process):
    """Which of its kinds a checked `run` is."""
    for kind in RUN_KINDS:
        if kind in process:
            return kind
    raise AssertionError("the validator refuses what runs nothing")


cdef str feature_of(dict definition):
    """What the table of kinds knows a checked task by."""
    cdef str key
    if "call" in definition:
        key = f"call: {definition['call']}"
        return key if key in KINDS_BY_FEATURE else "call"
    if "run" in definition:
        return "run: " + what_runs(definition["run"])
    for key in definition:
        # The `do` of a loop is its body.
        if key in KINDS_BY_FEATURE and not (key == "do" and "for" in definition):
            return key
    raise AssertionError("the validator refuses what does not execute")
