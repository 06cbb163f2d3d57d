"""Stages 2 to 5: `run` of a shell, a script or a container: an effect that ends with the process, or once it runs.

Rules: what is text of a program (`script.code`) is never evaluated. A process nobody awaits leaves the data as it is.
The driver answers such an effect when the process runs, so that what keeps it from that is the task's fault all the
same; from then on nothing of the workflow reaches the process.
"""

cimport cython

# Taken as they are: words, and text of a program.
cdef tuple RUN_CONSTANTS = ("language", "code", "pullPolicy")


@cython.final
@cython.internal
cdef class RunNode(TaskNode):
    cdef dict constants
    """What is the same for every execution."""
    cdef Template fields
    cdef UriTemplate source
    cdef Duration removed_after
    cdef bint is_awaited


cdef TaskNode build_run(PlanBuilder builder, dict definition, Siblings siblings):
    cdef RunNode task = RunNode.__new__(RunNode)
    cdef dict process = definition["run"]
    cdef dict fields = dict(process[what_runs(process)])
    cdef object source = fields.pop("source", None)
    cdef dict lifetime = fields.pop("lifetime", None) or {}
    task.is_awaited = process.get("await", True)
    task.constants = {
        "await": bool(task.is_awaited),
        "return": process.get("return", "stdout"),
        "cleanup": lifetime.get("cleanup", "never"),
        "name_parts": [builder.plan.name, builder.plan.namespace, siblings.names[siblings.position]],
    }
    for key in RUN_CONSTANTS:
        if key in fields:
            task.constants[key] = fields.pop(key)
    if source is not None:
        source = located_endpoint(builder, source["endpoint"])
        task.source = builder.uri(AT_RUN_SOURCE, source, siblings.bindings)
        task.authentication = build_authentication(builder, source, siblings.bindings)
    task.removed_after = builder.duration(AT_RUN_LIFETIME, lifetime.get("after"), siblings.bindings)
    task.fields = builder.template(AT_RUN, fields, siblings.bindings)
    return task


cdef int answer_run(Walk walk, Resource resource, object value, dict error) except -1:
    cdef TaskFrame frame = resource.frame
    if error is None and not (<RunNode> frame.task).is_awaited:
        value = frame.input
    return end_with_answer(walk, resource, value, error)


cdef dict render_run(Place at):
    """The fields of what is run, `return`, `await`; of scripts `code` or `source`, a URI; of containers `cleanup`,
    `removed_after_ms` and `name_parts`: workflow, namespace, task. Raises WalkFault."""
    cdef RunNode task = <RunNode> at.task
    cdef dict arguments = dict(fill(at, task.fields, at.input, 0))
    arguments.update(task.constants)
    if task.source is not None:
        arguments["source"] = expand_uri(at, task.source, at.input)
    if task.removed_after is not None:
        arguments["removed_after_ms"] = duration_of(at, task.removed_after, at.input)
    return arguments
