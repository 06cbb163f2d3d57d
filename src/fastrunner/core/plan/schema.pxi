"""Support of stages 2 and 4: JSON Schema validators, built once per plan.

Rules: no I/O, so references out of the schema are not fetched: such a schema is refused when the plan is built. A
document with a thousand violations reports the first few, and their messages are bounded.
"""

cimport cython

from itertools import islice

import jsonschema_rs as _jsonschema_rs

from fastrunner.limits import SCHEMA_ERRORS_MAX, SCHEMA_MESSAGE_SIZE_MAX


@cython.final
cdef class Schema:
    """A compiled JSON Schema. Raises ValueError when the schema itself is invalid or refers to something outside."""

    def __cinit__(self, object document):
        try:
            self.validator = _jsonschema_rs.validator_for(document, offline=True)
        except _jsonschema_rs.ValidationError as error:
            raise ValueError(f"not a valid JSON Schema: {error.message}") from None

    cdef str violation(self, object value):
        """What is wrong with a value, in one sentence; None if nothing is."""
        cdef list messages
        if self.validator.is_valid(value):
            return None
        messages = []
        for error in islice(self.validator.iter_errors(value), SCHEMA_ERRORS_MAX):
            path = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in error.instance_path)
            messages.append(f"{path or '/'}: {error.message[:SCHEMA_MESSAGE_SIZE_MAX]}")
        return "; ".join(messages)
