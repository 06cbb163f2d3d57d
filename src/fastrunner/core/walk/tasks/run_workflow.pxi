"""Stages 4 and 5: `run: workflow`: an effect that ends with another execution, or once that has been accepted.

Rule: what is not awaited leaves the data as it is. The driver answers such an effect when the other execution is sure
to happen, so that what keeps it from that is the task's fault all the same.
"""

cimport cython


@cython.final
@cython.internal
cdef class RunWorkflowNode(TaskNode):
    cdef Template fields
    cdef bint is_awaited


cdef TaskNode build_run_workflow(PlanBuilder builder, dict definition, Siblings siblings):
    cdef RunWorkflowNode task = RunWorkflowNode.__new__(RunWorkflowNode)
    cdef dict process = definition["run"]
    cdef Template namespace = builder.template(AT_RUN, process["workflow"]["namespace"], siblings.bindings)
    # An expression's template has no constant.
    builder.plan.namespaces_run |= {namespace.constant}
    task.is_awaited = process.get("await", True)
    task.fields = builder.template(AT_RUN, process["workflow"], siblings.bindings)
    return task


cdef int answer_run_workflow(Walk walk, Resource resource, object value, dict error) except -1:
    cdef TaskFrame frame = resource.frame
    if error is None and not (<RunWorkflowNode> frame.task).is_awaited:
        value = frame.input
    return end_with_answer(walk, resource, value, error)


cdef dict render_run_workflow(Place at):
    """namespace, name, version, await; input, unless the task gives none. Raises WalkFault."""
    cdef RunWorkflowNode task = <RunWorkflowNode> at.task
    cdef dict arguments = dict(fill(at, task.fields, at.input, 0))
    for key in ("namespace", "name", "version"):
        if not isinstance(arguments[key], str):
            raise fault_here(at, "expression", f"the {key} of the workflow to run is not a string")
    arguments["await"] = bool(task.is_awaited)
    return arguments
