"""Stages 4 and 5: `call: http`: an effect whose arguments are rendered when it starts."""

cimport cython


@cython.final
@cython.internal
cdef class CallHttpNode(TaskNode):
    cdef Template method
    cdef UriTemplate uri
    cdef Template headers
    cdef Template query
    cdef Template body
    cdef str output
    cdef bint redirect


cdef TaskNode build_call_http(PlanBuilder builder, dict definition, Siblings siblings):
    cdef CallHttpNode task = CallHttpNode.__new__(CallHttpNode)
    cdef dict arguments = definition["with"]
    cdef Bindings bindings = siblings.bindings
    task.method = builder.text_template(AT_HTTP_METHOD, arguments["method"], bindings)
    task.uri = builder.uri(AT_HTTP_ENDPOINT, arguments["endpoint"], bindings)
    task.authentication = build_authentication(builder, arguments["endpoint"], bindings)
    if arguments.get("headers") is not None:
        task.headers = builder.template(AT_HTTP_HEADERS, arguments["headers"], bindings)
    if arguments.get("query") is not None:
        task.query = builder.template(AT_HTTP_QUERY, arguments["query"], bindings)
    if "body" in arguments:
        task.body = builder.template(AT_HTTP_BODY, arguments["body"], bindings)
    task.output = arguments.get("output") or "content"
    task.redirect = bool(arguments.get("redirect"))
    return task


cdef int begin_effect(Walk walk, Place at, object data) except -1:
    """For kinds whose effect is their whole work: the task waits for it."""
    ask_effect(walk, at, push(walk, at, data))
    return block(walk, at.strand)


cdef dict render_call_http(Place at):
    """method, uri, headers, query, body, output, redirect. Raises WalkFault."""
    cdef CallHttpNode task = <CallHttpNode> at.task
    cdef object method = fill(at, task.method, at.input, 0)
    cdef dict arguments
    if not isinstance(method, str):
        raise fault_here(at, "expression", "the method is not a string")
    arguments = {
        "method": method.upper(),
        "uri": expand_uri(at, task.uri, at.input),
        "output": task.output,
        "redirect": task.redirect,
    }
    if task.headers is not None:
        arguments["headers"] = fill(at, task.headers, at.input, 0)
    if task.query is not None:
        arguments["query"] = fill(at, task.query, at.input, 0)
    if task.body is not None:
        arguments["body"] = fill(at, task.body, at.input, 0)
    return arguments
