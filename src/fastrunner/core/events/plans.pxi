"""Stages 2 and 4: an event strategy as a plan has it, and as it is where its task stands: with the values it needs.

Rules: what a filter says of the workflow's data is settled when its task begins; it is made again, the same, after a
restore. What a key must be is evaluated then, too: null would wait for ever, so that is the task's fault.
"""

cimport cython


@cython.final
@cython.internal
cdef class CorrelationPlan:
    cdef str key
    cdef Expression source
    cdef Template expected
    """None: what the first event has."""


@cython.final
@cython.internal
cdef class FilterPlan:
    cdef dict properties
    """Templates by attribute; `data` among them."""
    cdef list correlations


@cython.final
@cython.internal
cdef class StrategyPlan:
    cdef str kind
    cdef list filters
    cdef StrategyPlan until
    cdef Expression condition
    """`until` over the events so far."""


@cython.final
@cython.internal
cdef class IteratorPlan:
    """`foreach`: what is made of each event."""

    cdef TaskList body
    """None: nothing runs for an event."""
    cdef Template output_as
    cdef Schema output_schema
    cdef Template export_as
    cdef Schema export_schema


cdef IteratorPlan build_iterator(PlanBuilder builder, dict definition, str reference, Bindings outer):
    cdef IteratorPlan plan = IteratorPlan.__new__(IteratorPlan)
    cdef Bindings bindings = bind(outer, BINDS_ITEM, definition)
    cdef dict section
    if "do" in definition:
        plan.body = builder.tasks(AT_FOREACH_DO, definition["do"], reference + "/foreach/do", bindings)
    section = definition.get("output") or {}
    plan.output_as = builder.slot(AT_FOREACH_OUTPUT_AS, section.get("as"), bindings)
    plan.output_schema = builder.schema(section.get("schema"))
    section = definition.get("export") or {}
    plan.export_as = builder.slot(AT_FOREACH_EXPORT_AS, section.get("as"), bindings)
    plan.export_schema = builder.schema(section.get("schema"))
    return plan


cdef StrategyPlan build_strategy(PlanBuilder builder, dict definition, Bindings bindings):
    cdef StrategyPlan plan = StrategyPlan.__new__(StrategyPlan)
    cdef object until = definition.get("until")
    plan.kind = "one" if "one" in definition else "any" if "any" in definition else "all"
    plan.filters = [
        build_filter(builder, filter, bindings)
        for filter in ([definition["one"]] if plan.kind == "one" else definition[plan.kind])
    ]
    if isinstance(until, dict):
        plan.until = build_strategy(builder, until, bindings)
    elif until is not None:
        plan.condition = builder.expression(AT_LISTEN_UNTIL, until, bindings)
    return plan


cdef FilterPlan build_filter(PlanBuilder builder, dict definition, Bindings bindings):
    cdef FilterPlan plan = FilterPlan.__new__(FilterPlan)
    cdef CorrelationPlan correlation
    plan.properties = {
        name: builder.template(AT_LISTEN_WITH, value, bindings) for name, value in definition["with"].items()
    }
    plan.correlations = []
    for key, part in (definition.get("correlate") or {}).items():
        correlation = CorrelationPlan.__new__(CorrelationPlan)
        correlation.key = key
        correlation.source = builder.expression(AT_LISTEN_CORRELATE_FROM, part["from"], bindings)
        if "expect" in part:
            correlation.expected = builder.template(AT_LISTEN_CORRELATE_EXPECT, part["expect"], bindings)
        plan.correlations.append(correlation)
    return plan


# --- in a place ---

cdef Strategy strategy_at(Place at, StrategyPlan plan):
    """The strategy of the task at a place. Raises WalkFault."""
    return make_strategy(at.measure, close_strategy(at, plan))


cdef dict close_strategy(Place at, StrategyPlan plan):
    cdef list filters = [close_filter(at, <FilterPlan> filter) for filter in plan.filters]
    cdef dict closed = {"kind": plan.kind, "filters": filters}
    if plan.until is not None:
        closed["until"] = close_strategy(at, plan.until)
    elif plan.condition is not None:
        closed["until"] = close_expression(at, plan.condition)
    return closed


cdef dict close_filter(Place at, FilterPlan plan):
    cdef list correlations = []
    cdef CorrelationPlan correlation
    cdef dict closed
    for part in plan.correlations:
        correlation = <CorrelationPlan> part
        closed = {"key": correlation.key, **close_expression(at, correlation.source)}
        closed["from"] = closed.pop("expression")
        if correlation.expected is not None:
            closed["equals"] = fill(at, correlation.expected, at.input, 0)
            if correlation.expected.kind == TEMPLATE_EXPRESSION and reads_secrets(correlation.expected.expression):
                closed["secret"] = True
            if closed["equals"] is None:
                raise fault_here(at, "expression", f"the event that correlation {shown(correlation.key)} expects is "
                                 "none: `expect` is null, which no event has")
        correlations.append(closed)
    return {
        "with": {name: close_property(at, name, <Template> template) for name, template in plan.properties.items()},
        "correlate": correlations,
    }


cdef dict close_expression(Place at, Expression expression):
    cdef dict closed = {
        "expression": expression.program.text,
        "values": list(arguments_of(at, expression)) if expression.sources else [],
    }
    if expression.literal is not None:
        closed["literal"] = expression.literal
    return closed


cdef dict close_property(Place at, str name, Template template):
    cdef list parts = []
    if template.kind == TEMPLATE_EXPRESSION:
        return close_expression(at, template.expression)
    if name != "data":
        return {"is": template.constant}
    closed = close_data(at, template, [], parts)
    return {"equals": closed, "parts": parts}


cdef object close_data(Place at, Template template, list path, list parts):
    """Data with nulls where expressions stand, which `parts` get with their places."""
    cdef Py_ssize_t index
    if template.kind == TEMPLATE_CONSTANT:
        return template.constant
    if template.kind == TEMPLATE_EXPRESSION:
        parts.append([path, close_expression(at, template.expression)])
        return None
    if template.kind == TEMPLATE_ARRAY:
        return [close_data(at, <Template> template.parts[index], [*path, index], parts)
                for index in range(len(template.parts))]
    return {
        template.keys[index]: close_data(at, <Template> template.parts[index], [*path, template.keys[index]], parts)
        for index in range(len(template.parts))
    }
