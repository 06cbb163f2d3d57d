"""Stage 2, compile: the rules that shapes cannot say: strings by format, references, tasks, targets, combinations."""

from itertools import islice
from cpython.ref cimport PyObject

from fastrunner.base.limits import (
    FORK_BRANCHES_MAX as _FORK_BRANCHES_MAX,
    TASK_NESTING_MAX as _TASK_NESTING_MAX,
    TASKS_PER_DOCUMENT_MAX as _TASKS_PER_DOCUMENT_MAX,
)

cdef Py_ssize_t FORK_BRANCHES_MAX = _FORK_BRANCHES_MAX
cdef Py_ssize_t TASK_NESTING_MAX = _TASK_NESTING_MAX
cdef Py_ssize_t TASKS_PER_DOCUMENT_MAX = _TASKS_PER_DOCUMENT_MAX
cdef tuple DIRECTIVES = ("continue", "exit", "end")
cdef dict REUSABLE_SHAPES = {"timeouts": TIMEOUT, "retries": RETRY, "errors": ERROR, "authentications": POLICY}


# --- strings ---

cdef int check_text(Checker checker, Shape shape, str value, Path* path) except -1:
    cdef int rule = shape.text
    if rule == TEXT_FREE:
        return 0
    if rule == TEXT_POSITION:
        return check_form(checker, value, path)
    if rule == TEXT_VALUE:
        return checker.check_value(value, path)
    if rule == TEXT_WORD:
        return check_word(checker, shape, value, path)
    if rule == TEXT_EXTENDED:
        return check_extended(checker, shape, value, path)
    if rule == TEXT_THEN:
        return check_target(checker, value, path)
    if rule == TEXT_REFERENCE:
        return check_reference(checker, shape.group, value, path)
    if rule == TEXT_FUNCTION:
        return check_called(checker, value, path)
    if rule == TEXT_VARIABLE:
        return check_variable(checker, value, path)
    if rule == TEXT_LITERAL:
        return check_literal(checker, value, path)
    if rule == TEXT_URI or rule == TEXT_POINTER or rule == TEXT_TIME:
        checker.check_candidate(value, path)
    if rule == TEXT_URI:
        return check_uri(checker, value, path)
    return check_format(checker, rule, value, path)


cdef int check_form(Checker checker, str value, Path* path) except -1:
    """A string that is what the form of its position says."""
    cdef int form = checker.position.form
    if form == FORM_EXPRESSION or form == FORM_SLOT:
        checker.check_bare(value, path)
        return check_one_list(checker, value, path) if checker.position is AT_FOR_IN else 0
    if form == FORM_WRAPPED:
        return checker.check_wrapped(value, path)
    if form == FORM_DURATION:
        return check_duration(checker, value, path)
    if form == FORM_ENDPOINT:
        return check_uri(checker, value, path)
    if form == FORM_URI:
        return fault_of(checker, uri_template_fault(value), path)
    return checker.check_value(value, path)


cdef int check_uri(Checker checker, str value, Path* path) except -1:
    """A URI template, or an expression in `${ }`."""
    cdef tuple fault
    if expression_start(value) >= 0:
        return checker.check_wrapped(value, path)
    fault = uri_template_fault(value)
    if fault is not None:
        return fault_of(checker, fault, path)
    if "${" in value and not checker.document.is_stored:
        doubt(checker, "text-around-expression", path, TEXT_AROUND)
    if checker.position is AT_HTTP_ENDPOINT or checker.position is AT_RUN_SOURCE:
        return check_origin(checker, value, path)
    return 0


cdef int fault_of(Checker checker, tuple fault, Path* path) except -1:
    return 0 if fault is None else checker.problem(fault[0], path, False, fault[1])


cdef int check_format(Checker checker, int rule, str value, Path* path) except -1:
    """Strings with a format of their own."""
    cdef str message = None
    if rule == TEXT_NAME and not is_host_name(value, False):
        message = "a name has 1 to 63 letters, digits and hyphens, with a letter or digit first and last"
    elif rule == TEXT_HOST and not is_host_name(value, True):
        message = "a host name has 1 to 63 letters, digits, hyphens and dots, with a letter or digit first and last"
    elif rule == TEXT_SEMVER and not is_semver(value):
        message = "a version is semantic: major.minor.patch, such as 1.0.0"
    elif rule == TEXT_CRON:
        message = cron_fault(value)
    elif rule == TEXT_METHOD and not is_http_method(value):
        message = "an HTTP method is one word, such as GET"
    elif rule == TEXT_POINTER and expression_start(value) < 0 and not is_json_pointer(value):
        message = "an instance is a JSON pointer, such as /do/0/task, or an expression in ${ }"
    elif rule == TEXT_TIME and expression_start(value) < 0 and not is_date_time(value):
        message = "a time is RFC 3339, such as 2025-01-31T12:00:00Z, or an expression in ${ }"
    elif rule == TEXT_PATH:
        return fault_of(checker, uri_character_fault(value), path)
    elif rule == TEXT_DSL:
        return check_dsl(checker, value, path)
    elif rule == TEXT_FORMAT:
        return check_schema_format(checker, value, path)
    elif rule == TEXT_LANGUAGE and value != "jq":
        return checker.unsupported(f"expression language {shown(value)} (supported: jq)", path, False)
    elif (rule == TEXT_POINTER or rule == TEXT_TIME) and expression_start(value) >= 0:
        return checker.check_wrapped(value, path)
    elif rule == TEXT_METHOD:
        return checker.check_value(value, path)
    return 0 if message is None else checker.problem("invalid-format", path, False, message)


cdef bint is_http_method(str value) noexcept:
    """A token of RFC 9110 made of letters and hyphens, or an expression."""
    cdef Py_UCS4 character
    if expression_start(value) >= 0:
        return True
    for character in value:
        if not (u"a" <= character <= u"z" or u"A" <= character <= u"Z" or character == u"-"):
            return False
    return len(value) > 0


cdef int check_word(Checker checker, Shape shape, str value, Path* path) except -1:
    if value not in shape.words:
        checker.problem("invalid-value", path, False,
                        f"{shown(value)} is not {shape.expected}{checker.suggestion(value, shape.words)}; "
                        f"allowed: {listed(shape.words)}")
    return 0


cdef int check_dsl(Checker checker, str value, Path* path) except -1:
    if not is_semver(value):
        return checker.problem("invalid-format", path, False, "a version is semantic: major.minor.patch, such as 1.0.3")
    if not value.startswith("1."):
        return checker.problem("unsupported-dsl", path, False,
                               f"DSL version {shown(value)} is not supported; supported: 1.x (1.0 and 1.1)")
    return 0


cdef int check_schema_format(Checker checker, str value, Path* path) except -1:
    if value in ("json", "json:2020-12"):
        return 0
    if value.startswith("json:"):
        return checker.unsupported(f"schema format {shown(value)} (supported: json, and any draft by `$schema`)", path,
                                   False)
    return checker.unsupported(f"schema format {shown(value)} (supported: json)", path, False)


cdef int check_variable(Checker checker, str value, Path* path) except -1:
    if not is_variable_name(value):
        return checker.problem("invalid-format", path, False,
                               "a variable name has letters, digits and '_', no digit first, and no '$' before it")
    if value in RUNNER_ARGUMENTS or value in ("ENV", "__loc__", "__prog_args"):
        return checker.problem("reserved-name", path, False,
                               f"${value} is bound by the runtime; choose another variable name")
    return 0


cdef int check_duration(Checker checker, str value, Path* path) except -1:
    if expression_start(value) >= 0:
        return checker.check_wrapped(value, path)
    try:
        iso_duration_ms(value)
    except DurationTooLong as error:
        checker.problem("out-of-range", path, False, f"{error}")
    except ValueError as error:
        checker.problem("invalid-format", path, False, f"{error}; or use an object, or an expression in ${{ }}")
    return 0


# --- references ---

cdef int check_reference(Checker checker, str group, str value, Path* path) except -1:
    """A name in a group of `use`. A reusable definition's expressions are checked where it is used."""
    cdef object definitions = checker.use.get(group, ())
    cdef Bindings bindings = checker.bindings
    cdef object use
    cdef str candidates
    cdef Path use_path, group_path, definition_path
    if not value and (group == "secrets" or group == "authentications"):
        return checker.problem("empty-value", path, False, f"expected the name of one of use.{group}; it is empty")
    if value not in definitions:
        candidates = f"it has: {listed(definitions)}" if definitions else "it is empty or missing"
        return checker.problem("unknown-reference", path, False,
                               f"use.{group} has no {shown(value)}{checker.suggestion(value, definitions)}; "
                               f"{candidates}")
    if group not in REUSABLE_SHAPES or bindings is None:
        return 0
    use = (group, value, checker.position, bindings.around, bindings.own)
    if use not in checker.uses:
        checker.uses.add(use)
        use_path.index = group_path.index = definition_path.index = 0
        use_path.parent = NULL
        use_path.key = <PyObject*>USE_KEY
        group_path.parent = &use_path
        group_path.key = <PyObject*>group
        definition_path.parent = &group_path
        definition_path.key = <PyObject*>value
        checker.check(<Shape>REUSABLE_SHAPES[group], definitions[value], &definition_path)
    return 0


cdef str USE_KEY = "use"


cdef int check_target(Checker checker, str value, Path* path) except -1:
    """A flow directive: continue, exit, end or a task of the same list."""
    if value in DIRECTIVES or (checker.siblings is not None and value in checker.siblings):
        return 0
    if checker.siblings:
        message = f"its tasks: {listed(checker.siblings)}"
    else:
        message = "branches and functions have no tasks to go on with"
    return checker.problem("unknown-target", path, False,
                           f"no task {shown(value)} in this list"
                           f"{checker.suggestion(value, [*(checker.siblings or ()), *DIRECTIVES])}; "
                           f"allowed: continue, exit, end or a task of the same list ({message})")


# --- tasks ---

cdef int check_tasks(Checker checker, Shape shape, list tasks, Path* path) except -1:
    """A task list: one named task per item, names unique; `then` may name its tasks, but not those of branches."""
    cdef bint branches = shape.rule == RULE_BRANCHES
    cdef dict siblings = checker.siblings
    cdef Bindings outer = checker.bindings
    if branches and len(tasks) > FORK_BRANCHES_MAX:
        checker.problem("too-many-tasks", path, True, f"a fork has at most {FORK_BRANCHES_MAX} branches")
    if checker.nesting >= TASK_NESTING_MAX:
        return checker.problem("too-deep", path, True,
                               f"task lists are nested more than {TASK_NESTING_MAX} levels deep")
    checker.siblings = task_names(checker, tasks, path)
    if branches:
        checker.siblings = {}
    if outer.own is not outer.around:
        checker.bindings = bindings_of(outer.at(checker.position))
    checker.nesting += 1
    checker.items(shape, tasks, 0, path)
    checker.nesting -= 1
    checker.bindings = outer
    checker.siblings = siblings
    return 0


cdef dict task_names(Checker checker, list tasks, Path* path):
    cdef dict names = {}
    cdef Path item_path, name_path
    cdef str name
    checker.left -= len(tasks) * COST_VALUE
    item_path.parent = path
    item_path.key = NULL
    item_path.index = 0
    name_path.parent = &item_path
    name_path.index = 0
    for item in tasks:
        if type(item) is dict:
            for name in <dict>item:
                name_path.key = <PyObject*>name
                if name in names:
                    checker.problem("duplicate-task", &name_path, True,
                                    f"a task named {shown(name)} stands in this list already; names are unique")
                names[name] = True
                check_task_name(checker, name, &name_path)
        item_path.index += 1
    return names


cdef int check_named(Checker checker, Shape shape, dict item, Path* path) except -1:
    """An item of a list of named things: an object with one key."""
    cdef Path inner
    cdef str second
    if not item:
        return checker.problem("not-one-key", path, False, f"expected {shape.expected}")
    if len(item) > 1:
        second = list(item)[1]
        inner.parent = path
        inner.key = <PyObject*>second
        inner.index = 0
        checker.problem("not-one-key", &inner, True,
                        f"an item of this list is {shape.expected}; {shown(second)} is another: begin it with '- ' as "
                        "an item of its own")
    return checker.members(shape, item, 0, path)


cdef int check_task(Checker checker, dict task, Path* path) except -1:
    cdef list kinds = task_kinds(task)
    cdef Shape shape
    checker.tasks += 1
    checker.left -= COST_TASK
    if checker.tasks == TASKS_PER_DOCUMENT_MAX + 1:
        checker.problem("too-many-tasks", path, True, f"a document has at most {TASKS_PER_DOCUMENT_MAX} tasks")
    if len(kinds) != 1:
        return check_kindless_task(checker, task, kinds, path)
    shape = task_shape(task, kinds[0])
    checker.bound_members(shape, task, path)
    return checker.check_required(shape, task, path)


cdef list task_kinds(dict task):
    """The kinds a task's keys name; the `do` of a loop is its body."""
    cdef list kinds = []
    for key in task:
        if key in TASK_KINDS and not (key == "do" and "for" in task):
            kinds.append(key)
    return kinds


cdef Shape task_shape(dict task, str kind):
    cdef object protocol
    if kind == "call":
        protocol = task["call"]
        if type(protocol) is str and protocol in CALLS:
            return CALLS[protocol]
    return TASK_KINDS[kind]


cdef int check_kindless_task(Checker checker, dict task, list kinds, Path* path) except -1:
    """A task of no kind or of several: whatever can be told apart is still checked."""
    cdef dict fields = dict(COMMON_FIELDS)
    cdef int binds = BINDS_LOOP if "for" in kinds else BINDS_NOTHING
    cdef str hint = ""
    if kinds:
        checker.conflict(task, kinds, f"a task has exactly one of {listed(TASK_KINDS)}", path)
    else:
        for key in islice(task, NAMES_COMPARED_MAX):
            if key not in COMMON_FIELDS:
                hint = hint or checker.suggestion(key, TASK_KINDS)
        checker.problem("missing-key", path, True, f"a task has exactly one of {listed(TASK_KINDS)}{hint}")
    for kind in kinds:
        fields.update(task_shape(task, kind).fields)
    return checker.bound_members(Shape("a task", IS_OBJECT, fields=fields, members=UNREAD, binds=binds), task, path)


# What stands under a key that is not known because the task's kind is not.
cdef Shape UNREAD = Shape("any value", IS_ANY)


cdef int check_defaults(Checker checker, list cases, Path* path) except -1:
    """At most one case of a switch is without `when`."""
    cdef Path inner, name_path
    cdef str name
    cdef Py_ssize_t defaults = 0
    checker.left -= len(cases) * COST_VALUE
    inner.parent = path
    inner.key = NULL
    inner.index = 0
    name_path.parent = &inner
    name_path.index = 0
    for item in cases:
        if type(item) is dict:
            for name, case in (<dict>item).items():
                if type(case) is dict and "when" not in case:
                    defaults += 1
                    if defaults == 2:
                        name_path.key = <PyObject*>name
                        checker.problem("duplicate-default", &name_path, True,
                                        "a case without `when` is the default, and another one stands before this: "
                                        "give this one a `when`")
        inner.index += 1
    return 0


# --- combinations ---

cdef int check_rule(Checker checker, Shape shape, dict value, Path* path) except -1:
    cdef int rule = shape.rule
    if rule == RULE_SINGLE_KEY and len(value) != 1:
        return checker.problem("not-one-key", path, False, f"expected {shape.expected}; this one has {len(value)}")
    if rule == RULE_SCHEME and "use" in value and len(value) > 1:
        return checker.conflict(value, list(value), "`use` takes everything from a secret and stands alone", path)
    if rule == RULE_SCHEME and value.get("grant") == "authorization_code":
        return member_problem(checker, "unsupported", "grant",
                              "grant: authorization_code: part of the DSL, but it needs a person with a browser, whom "
                              "a workflow does not have; use client_credentials, refresh_token, password or "
                              "urn:ietf:params:oauth:grant-type:token-exchange", path)
    if rule == RULE_FUNCTIONS:
        return check_functions(checker, value, path)
    if rule == RULE_ELSEWHERE:
        return need_schema(checker, value, path)
    if rule == RULE_DESCRIPTION:
        return need_description(checker, value, path)
    if rule == RULE_LIFETIME:
        return check_lifetime(checker, value, path)
    if rule == RULE_SCHEDULE:
        return check_schedule(checker, value, path)
    if rule == RULE_UNTIL and "until" in value and "any" not in value:
        return member_problem(checker, "conflicting-keys", "until", "`until` stands only beside `any`", path)
    if rule == RULE_CLIENT:
        return check_client(checker, value, path)
    if rule == RULE_AGENT:
        if "agentCard" not in value and "server" not in value:
            checker.problem("missing-key", path, True, "one of the keys agentCard and server is required")
        return check_call(checker, "a2a", value, path)
    if rule == RULE_MCP:
        return check_call(checker, "mcp", value, path)
    if rule == RULE_ASYNCAPI:
        return check_call(checker, "asyncapi", value, path)
    if rule == RULE_DURATION:
        return check_duration_object(checker, value, path)
    if rule == RULE_RUN:
        return check_run(checker, value, path)
    if rule == RULE_EXTENSION:
        return doubt_extension(checker, value, path)
    if rule == RULE_ARGUMENTS:
        return doubt_arguments(checker, path)
    if rule == RULE_EMITTED or rule == RULE_WANTED:
        check_event(checker, value, rule == RULE_EMITTED, path)
        return doubt_patterns(checker, value, path) if rule == RULE_WANTED else 0
    if rule == RULE_FILTER and "detail" in value and "details" in value:
        return checker.conflict(value, ["detail", "details"], "`details` is another name of `detail`", path)
    return 0


cdef int member_problem(Checker checker, str code, str key, str message, Path* path) except -1:
    cdef Path inner
    inner.parent = path
    inner.key = <PyObject*>key
    inner.index = 0
    return checker.problem(code, &inner, True, message)


cdef int check_lifetime(Checker checker, dict value, Path* path) except -1:
    if value.get("cleanup") == "eventually":
        if "after" not in value:
            checker.problem("missing-key", path, True, "cleanup: eventually requires `after`, a duration")
    elif "after" in value:
        member_problem(checker, "conflicting-keys", "after", "`after` stands only beside cleanup: eventually", path)
    return 0


cdef int check_schedule(Checker checker, dict value, Path* path) except -1:
    if "read" in value and "on" not in value:
        member_problem(checker, "conflicting-keys", "read", "`read` stands only beside `on`", path)
    for key in ("every", "cron", "after", "on"):
        if key in value:
            return 0
    return checker.problem("missing-key", path, True, "one of the keys every, cron, after and on is required")


cdef int check_client(Checker checker, dict value, Path* path) except -1:
    cdef object method = value.get("authentication")
    if "id" not in value and method != "none":
        checker.problem("missing-key", path, True, "the key `id` is required unless authentication is none")
    if method == "private_key_jwt" and "assertion" not in value:
        checker.problem("missing-key", path, True, "authentication: private_key_jwt requires `assertion`")
    return 0


cdef int check_duration_object(Checker checker, dict value, Path* path) except -1:
    cdef object total = 0
    for unit, count in value.items():
        if unit in DURATION_UNITS_MS and is_integral(count):
            total += int(count) * DURATION_UNITS_MS[unit]
    if not -DURATION_MS_MAX <= total <= DURATION_MS_MAX:
        checker.problem("out-of-range", path, False, DURATION_TOO_LONG)
    return 0


cdef int check_schema(Checker checker, object schema, Path* path) except -1:
    """A JSON Schema that compiles without fetching anything; draft 2020-12 unless `$schema` names another."""
    cdef long long before = checker.document.steps_left
    checker.left -= COST_SCHEMA
    try:
        compiled_schema(checker.document, schema)
    except TooCostly as error:
        checker.too_costly(error, path)
    except InvalidSchema as error:
        checker.problem("invalid-schema", path, False,
                        f"not a valid JSON Schema{' at ' + error.pointer if error.pointer else ''}: {error.reason}")
    finally:
        checker.left -= (before - checker.document.steps_left) // STEPS_PER_POINT
    return 0
