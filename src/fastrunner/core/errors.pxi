"""Support of stage 4, walk: errors as the DSL has them (RFC 7807), and what a filter on their type matches.

Rules: the normative base is the only one ever emitted; when a filter is matched, the spellings in circulation (two
hosts, two bases, eight names) are one and the same. Any other type is the author's and compared as it is.
"""

from typing import Final

_ERROR_BASE: Final = "https://open-workflow-specification.org/spec/1.0.0/errors/"
_ERROR_HOSTS: Final = ("https://open-workflow-specification.org", "https://serverlessworkflow.io")
_ERROR_PATHS: Final = ("/spec/1.0.0/errors/", "/dsl/errors/types/")

# name -> (type, default status, title)
cdef dict STANDARD_ERRORS = {
    name: (_ERROR_BASE + name, status, f"{name.capitalize()} Error")
    for name, status in (
        ("configuration", 400),
        ("validation", 400),
        ("expression", 400),
        ("authentication", 401),
        ("authorization", 403),
        ("timeout", 408),
        ("communication", 500),
        ("runtime", 500),
    )
}

# every spelling in circulation -> name
cdef dict ERROR_NAMES = {
    host + path + name: name for host in _ERROR_HOSTS for path in _ERROR_PATHS for name in STANDARD_ERRORS
}

cdef dict ERROR_CODES = {
    "validation": "VALIDATION_ERROR",
    "timeout": "TIMEOUT_ERROR",
    "runtime": "SYSTEM_ERROR",
    "configuration": "SYSTEM_ERROR",
}


class WalkFault(Exception):
    """A DSL error on its way to the next `try`; `error` is the object expressions and callers see."""

    def __init__(self, error):
        super().__init__(error["type"])
        self.error = error


cdef dict make_error(str name, str detail, str instance):
    """One of the eight standard errors."""
    cdef tuple standard = STANDARD_ERRORS[name]
    return {
        "type": standard[0],
        "status": standard[1],
        "title": standard[2],
        "detail": detail,
        "instance": instance,
    }


cdef dict whole_error(object error, str instance):
    """An error that comes from outside, with what every error has: type, status and instance. Raises ValueError for
    members of a wrong type."""
    cdef dict whole = {key: error[key] for key in ("type", "status", "title", "detail", "instance")
                       if error.get(key) is not None}
    if not isinstance(whole.get("type"), str) or not isinstance(whole.setdefault("status", 500), int):
        raise ValueError("not an error: `type` is a string and `status` an integer")
    for key in ("title", "detail", "instance"):
        if not isinstance(whole.get(key, ""), str):
            raise ValueError(f"not an error: `{key}` is a string")
    whole["instance"] = whole.get("instance") or instance
    return whole


cdef str error_code(object type_uri):
    """The runner's class of an error, for ErrorDetails."""
    return ERROR_CODES.get(ERROR_NAMES.get(type_uri, ""), "EXECUTION_ERROR")


cdef bint same_error_type(object wanted, object actual):
    cdef object name = ERROR_NAMES.get(wanted)
    return wanted == actual if name is None else ERROR_NAMES.get(actual) == name
