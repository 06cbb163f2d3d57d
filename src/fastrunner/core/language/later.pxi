"""Stage 2, compile: the rules that came after the first format of stored documents, all in this one place.

Rules: an execution that was accepted goes on with the document it has, so none of these is asked of a stored document:
each begins with that. The plan builder relies on none of them. `program_of` has the one about costs.
"""

from fastrunner._jq cimport Program

# What stands where a scheme or the name of a policy is expected.
cdef frozenset POLICY_KEYS = frozenset(("use", *SCHEMES))
# Data, whatever its keys are called.
cdef frozenset PLAIN_KEYS = frozenset(("set", "body", "metadata", "headers", "query", "input", "output", "export"))


cdef int check_task_name(Checker checker, str name, Path* path) except -1:
    """A task has no name that `then` takes for a directive."""
    if checker.document.is_stored or name not in DIRECTIVES:
        return 0
    return checker.problem("reserved-name", path, True,
                           f"`then: {name}` is a flow directive, so no `then` could name this task; rename it")


cdef int check_one_list(Checker checker, str value, Path* path) except -1:
    """The expression of a `for.in` yields one list: its syntax does not say otherwise."""
    cdef object text = checker.text_of(value)
    cdef object program
    if checker.document.is_stored:
        return 0
    program = checker.document.programs.get(value.strip() if text is None else text)
    if type(program) is not Program or not (<Program>program).is_generator:
        return 0
    return checker.problem("several-results", path, False,
                           "`for.in` takes one list, and this expression yields its results one by one, so that a "
                           "single one is no list: put it in brackets, as in [.items[]]")


cdef int check_origin(Checker checker, str value, Path* path) except -1:
    """An endpoint of HTTP says where its host is, as far as it is written out: a variable may stand for any part."""
    cdef str head, lowered
    cdef bint has_variable
    if checker.document.is_stored or checker.is_loose:
        return 0
    if checker.position is AT_RUN_SOURCE:
        value = located_uri(checker.document.origin, value)
    head = value.partition("{")[0]
    has_variable = len(head) < len(value)
    lowered = head.lower()
    if lowered.startswith(("http://", "https://")):
        head = head.partition("://")[2]
        if head[:1] not in ("/", "?", "#") if head else has_variable:
            return 0
        return checker.problem("invalid-format", path, False,
                               "an HTTP endpoint has a host: write it after the scheme, as in https://host/path")
    if has_variable and ("http://".startswith(lowered) or "https://".startswith(lowered)):
        return 0
    if head.startswith("/"):
        message = "this is a path alone: write scheme and host before it, as in https://host/path"
    elif head.startswith((".", "$")):
        message = "this is taken for a URI, not evaluated: write an expression in ${ }"
    elif "://" in head:
        message = "a call over HTTP has no other schemes than http:// and https://"
    else:
        message = "the scheme is missing: write http:// or https:// before the host, as in http://localhost:8080/path"
    return checker.problem("invalid-format", path, False,
                           f"an HTTP endpoint begins with http:// or https://; {message}")


cdef int check_literal(Checker checker, str value, Path* path) except -1:
    """A filter is compared as it stands."""
    if checker.document.is_stored or expression_start(value) < 0:
        return 0
    return checker.problem("never-matches", path, False,
                           "a filter of errors is compared as it stands, so an expression never matches: write the "
                           "text itself, or decide with `catch.when`")


cdef int check_opened(Checker checker, str value, Py_ssize_t start, Path* path) except -1:
    """Text that opens with `${` and is not one expression as a whole."""
    if checker.document.is_stored and (
        not value.rstrip().endswith("}") or closing_brace(value, start, len(value)) >= 0
    ):
        return 0
    return checker.unbalanced(path)


cdef int check_provided(Checker checker, Program program, str name, int code, Path* path) except -1:
    """A variable of the runtime that has no value unless the document asks for one."""
    if checker.document.is_stored or is_provided(checker.document, code):
        return 0
    remedy = ("a function from elsewhere sees none: hand over what it needs in `with`"
              if code == ARGUMENT_SECRETS and checker.document.origin is not None
              else "the document declares no secrets: name them in use.secrets" if code == ARGUMENT_SECRETS
              else "nothing in the document authenticates: give an endpoint its `authentication`")
    return checker.problem("unprovided-variable", path, False,
                           f"${name} (character {program.argument_offset(name) + 1}) has no value: {remedy}")


cdef bint is_provided(Document document, int code) except -1:
    """Whether something in the document gives an argument its value."""
    cdef object use
    if code == ARGUMENT_SECRETS and document.origin is not None:
        return False
    if code == ARGUMENT_SECRETS:
        use = (<dict>document.root).get("use")
        return type(use) is dict and type((<dict>use).get("secrets")) is list and len((<dict>use)["secrets"]) > 0
    if code == ARGUMENT_AUTHORIZATION:
        if document.authenticates == 0:
            document.authenticates = 1 if authenticates(document.root) else -1
        return document.authenticates == 1
    return True


cdef bint authenticates(object value) except -1:
    """Whether an endpoint in it has a policy; the depth of documents is bounded."""
    cdef object member
    if type(value) is list:
        for member in <list>value:
            if authenticates(member):
                return True
    elif type(value) is dict:
        member = (<dict>value).get("authentication")
        if type(member) is dict and not POLICY_KEYS.isdisjoint(member):
            return True
        for key, member in (<dict>value).items():
            if key not in PLAIN_KEYS and authenticates(member):
                return True
    return False


cdef int check_run(Checker checker, dict value, Path* path) except -1:
    """What the runner is set up to run, as far as the document tells: an image may be an expression."""
    for kind, key in (("shell", None), ("script", "language"), ("container", "image")):
        if kind in value:
            check_refusal(checker, "not-allowed", kind, constant_of(value[kind], key), kind, path)
    return 0


cdef int check_call(Checker checker, str protocol, dict value, Path* path) except -1:
    """Calls of a protocol need its libraries; an MCP server that the runner starts is something that it runs."""
    cdef object transport
    check_refusal(checker, "not-installed", "call", protocol, "call", path.parent)
    if protocol == "asyncapi" and type(value.get("protocol")) is str:
        check_refusal(checker, "not-installed", "call", f"asyncapi:{value['protocol']}", "protocol", path)
    transport = value.get("transport")
    if protocol == "mcp" and type(transport) is dict and "stdio" in transport:
        check_refusal(checker, "not-allowed", "mcp", constant_of(transport["stdio"], "command"), "transport", path)
    return 0


cdef object constant_of(object value, object key):
    """A text that the document says; None if an expression makes it."""
    value = value.get(key) if type(value) is dict else None
    return value if type(value) is str and expression_start(value) < 0 else None


cdef int check_refusal(Checker checker, str code, str kind, object what, str key, Path* path) except -1:
    """Asks the runner, unless it has accepted the document before; the problem is at a key."""
    cdef object refusal
    if checker.document.is_stored or checker.document.refuse is None:
        return 0
    refusal = checker.document.refuse(kind, what)
    if refusal:
        member_problem(checker, code, key, refusal, path)
    return 0
