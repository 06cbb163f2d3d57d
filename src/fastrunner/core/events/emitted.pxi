"""Stage 5, tasks: what `emit` publishes: a CloudEvent 1.0, made of a document's properties.

Rules: whoever publishes fills in `id` and `time` where the document gives none, so that a repetition has the same ones.
An attribute that is null is left out; one that CloudEvents has no type for is the task's fault, and nothing is sent.
"""

cdef tuple TEXT_ATTRIBUTES = ("id", "source", "type", "subject", "datacontenttype", "dataschema", "time")


cdef dict emitted_event(Place at, dict properties, str source):
    """The event, without what is filled in later. Raises WalkFault."""
    cdef dict event = {"specversion": "1.0"}
    for name, value in properties.items():
        if value is not None or name == "data":
            event[name] = value
    event.setdefault("source", source)
    if event["specversion"] != "1.0":
        raise fault_here(at, "expression", "the event's specversion is not 1.0, the only one there is")
    if "type" not in event:
        raise fault_here(at, "expression", "the event's type is null: it has to be a string")
    for name, value in event.items():
        if name in TEXT_ATTRIBUTES and not (isinstance(value, str) and value):
            raise fault_here(at, "expression", f"the event's {name} is not a string with something in it")
        if name != "data" and not is_attribute(value):
            raise fault_here(at, "expression", f"the event's {shown(name)} is neither a string nor true, false or an "
                             "integer of 32 bits: attributes have no other types, `data` may have any")
    if "time" in event and not is_date_time(event["time"]):
        raise fault_here(at, "expression", "the event's time is not RFC 3339, such as 2025-01-31T12:00:00Z")
    if not isinstance(event.get("data", ""), str) and not is_json_type(event):
        raise fault_here(at, "expression", "the event's datacontenttype is not JSON, so its data is a string")
    return event


cdef bint is_attribute(object value) except -1:
    if isinstance(value, (bool, str)):
        return True
    return isinstance(value, int) and INT32_MIN <= value <= INT32_MAX
