"""Stages 4 and 5: calls of protocols that somebody describes elsewhere: an OpenAPI document, a .proto file, an agent's
card; or that need no description. An effect whose arguments are `with`, filled.

Rules: what is described elsewhere is a part of the plan, if it could be read before anything ran; else whoever performs
the effect fetches it, with the policy that is for it. The task's own policy is for the service that is called.
"""

cimport cython


@cython.internal
cdef class CallProtocolNode(TaskNode):
    cdef Template arguments
    """All of `with` but what follows."""
    cdef str described
    """The key of the resource that describes the service; None without one."""
    cdef UriTemplate resource
    cdef Authentication resource_authentication
    cdef Description description
    """What the plan knows of it; None if its URL is not constant."""
    cdef UriTemplate endpoint
    cdef Duration timeout_of_call


cdef CallProtocolNode build_protocol(PlanBuilder builder, dict arguments, str described, object proven,
                                     object endpoint, Siblings siblings):
    """`arguments` is what is left of `with`; `proven` what has the policy of the calls, `endpoint` where they go unless
    the description says so; either may be None."""
    cdef CallProtocolNode task = CallProtocolNode.__new__(CallProtocolNode)
    fill_protocol(task, builder, arguments, described, proven, endpoint, siblings)
    return task


cdef int fill_protocol(CallProtocolNode task, PlanBuilder builder, dict arguments, str described, object proven,
                       object endpoint, Siblings siblings) except -1:
    cdef Bindings bindings = siblings.bindings
    cdef object resource = arguments.pop(described, None) if described is not None else None
    if resource is not None:
        task.described = described
        task.resource = builder.uri(AT_CALL_ENDPOINT, resource["endpoint"], bindings)
        task.description = described_by(builder, resource)
        if task.description is not None:
            task.resource = task.description.resource
        task.resource_authentication = build_authentication(builder, resource["endpoint"], bindings)
    if endpoint is not None:
        task.endpoint = builder.uri(AT_CALL_ENDPOINT, endpoint, bindings)
    task.authentication = build_authentication(builder, proven, bindings)
    task.timeout_of_call = builder.duration(AT_CALL_DURATION, arguments.pop("timeout", None), bindings)
    task.arguments = builder.template(AT_CALL_WITH, arguments, bindings)
    return 0


cdef dict render_protocol(Place at):
    """The keys of `with` as in the document, filled, but for these: the resource, by its key, is `uri` and, if it has a
    policy, `authentication`, and if the plan has it, `text` and `digest`; `endpoint` is a URI, `timeout_ms` a duration.
    Raises WalkFault."""
    cdef CallProtocolNode task = <CallProtocolNode> at.task
    cdef dict arguments = dict(fill(at, task.arguments, at.input, 0))
    cdef dict resource
    if task.resource is not None:
        resource = {"uri": expand_uri(at, task.resource, at.input)}
        if task.description is not None and task.description.text is not None:
            resource["text"], resource["digest"] = task.description.text, task.description.digest
        if task.resource_authentication is not None:
            resource["authentication"] = render_authentication(at, task.resource_authentication)
        arguments[task.described] = resource
    if task.endpoint is not None:
        arguments["endpoint"] = expand_uri(at, task.endpoint, at.input)
    if task.timeout_of_call is not None:
        arguments["timeout_ms"] = duration_of(at, task.timeout_of_call, at.input)
    return arguments


# --- which parts of `with` are what ---

cdef TaskNode build_call_openapi(PlanBuilder builder, dict definition, Siblings siblings):
    cdef dict arguments = dict(definition["with"])
    proven = {"authentication": arguments.pop("authentication", None)}
    return build_protocol(builder, arguments, "document", proven, None, siblings)


cdef TaskNode build_call_grpc(PlanBuilder builder, dict definition, Siblings siblings):
    cdef dict arguments = dict(definition["with"])
    cdef dict service = dict(arguments["service"])
    proven = {"authentication": service.pop("authentication", None)}
    arguments["service"] = service
    return build_protocol(builder, arguments, "proto", proven, None, siblings)


cdef TaskNode build_call_mcp(PlanBuilder builder, dict definition, Siblings siblings):
    cdef dict arguments = dict(definition["with"])
    cdef dict transport = dict(arguments["transport"])
    cdef object endpoint = None
    arguments["transport"] = transport
    if "http" in transport:
        transport["http"] = dict(transport["http"])
        endpoint = transport["http"].pop("endpoint")
    return build_protocol(builder, arguments, None, endpoint, endpoint, siblings)


cdef TaskNode build_call_a2a(PlanBuilder builder, dict definition, Siblings siblings):
    cdef dict arguments = dict(definition["with"])
    server = arguments.pop("server", None)
    return build_protocol(builder, arguments, "agentCard", server, server, siblings)
