"""Support of stage 2: which keywords each draft of JSON Schema has, and which of them hold schemas.

Rules: a keyword that a draft does not have is an annotation there, as is anything unknown. `format` asserts in drafts
4, 6 and 7 and is an annotation from 2019-09 on.
"""

from fastrunner.base.limits import SCHEMA_MESSAGE_SIZE_MAX

cdef dict DRAFTS = {
    "http://json-schema.org/draft-04/schema": 4,
    "http://json-schema.org/draft-06/schema": 6,
    "http://json-schema.org/draft-07/schema": 7,
    "https://json-schema.org/draft/2019-09/schema": 2019,
    "https://json-schema.org/draft/2020-12/schema": 2020,
    "http://json-schema.org/schema": 2020,
}
cdef dict META_URIS = {draft: uri for uri, draft in DRAFTS.items() if uri != "http://json-schema.org/schema"}
cdef int DRAFT_NEWEST = 2020

# What a keyword holds.
cdef enum SchemaHolds:
    HOLDS_ONE = 1
    HOLDS_LIST = 2
    HOLDS_NAMED = 4

# Keyword -> the first draft that has it, the last one, what it holds.
cdef dict SCHEMA_KEYWORDS = {
    "additionalItems": (4, 2019, HOLDS_ONE),
    "additionalProperties": (4, 2020, HOLDS_ONE),
    "allOf": (4, 2020, HOLDS_LIST),
    "anyOf": (4, 2020, HOLDS_LIST),
    "contains": (6, 2020, HOLDS_ONE),
    "contentSchema": (2019, 2020, HOLDS_ONE),
    "definitions": (4, 2020, HOLDS_NAMED),
    "$defs": (2019, 2020, HOLDS_NAMED),
    "dependencies": (4, 2020, HOLDS_NAMED),
    "dependentSchemas": (2019, 2020, HOLDS_NAMED),
    "else": (7, 2020, HOLDS_ONE),
    "if": (7, 2020, HOLDS_ONE),
    "items": (4, 2020, HOLDS_ONE | HOLDS_LIST),
    "not": (4, 2020, HOLDS_ONE),
    "oneOf": (4, 2020, HOLDS_LIST),
    "patternProperties": (4, 2020, HOLDS_NAMED),
    "prefixItems": (2020, 2020, HOLDS_LIST),
    "properties": (4, 2020, HOLDS_NAMED),
    "propertyNames": (6, 2020, HOLDS_ONE),
    "then": (7, 2020, HOLDS_ONE),
    "unevaluatedItems": (2019, 2020, HOLDS_ONE),
    "unevaluatedProperties": (2019, 2020, HOLDS_ONE),
}


cdef int holding(str keyword, int draft):
    """What a keyword holds in a draft; 0 if no schemas."""
    cdef tuple row = SCHEMA_KEYWORDS.get(keyword)
    if row is None or not row[0] <= draft <= row[1]:
        return 0
    return row[2]


cdef int draft_of(object document) except 0:
    """The draft a document names, 2020-12 if none. Raises InvalidSchema for a name nobody knows."""
    cdef object uri = document.get("$schema") if type(document) is dict else None
    cdef object draft
    if type(uri) is not str:
        return DRAFT_NEWEST
    draft = DRAFTS.get(uri.removesuffix("#"))
    if draft is None:
        raise InvalidSchema("", f"Unknown meta-schema: {shown_json(uri, SCHEMA_MESSAGE_SIZE_MAX)}")
    return draft


cdef bint is_schema(object value, int draft):
    return type(value) is dict or (type(value) is bool and draft > 4)
