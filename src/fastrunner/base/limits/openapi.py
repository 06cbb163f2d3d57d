"""Stage 5, tasks: the bounds of what is read of OpenAPI documents."""

from typing import Final

OPENAPI_REFERENCES_MAX: Final = 32
"""References that one place leads through, one to the other: documents have two or three; a circle has no end."""

OPENAPI_LOOKUPS_MAX: Final = 200_000
"""Steps from one member to the next on the way of references, of all paths of a document and again of one operation:
some tens of milliseconds. The largest public documents take a tenth of it."""

OPENAPI_REFERENCE_SIZE_CHARS_MAX: Final = 2_048
"""One reference: as long as a URL may be."""

OPENAPI_CONTENTS_MAX: Final = 20
"""Content types of one body: all of their members are looked at."""

OPENAPI_PARAMETERS_MAX: Final = 1_000
"""Parameters of an operation, and members of its body that are looked at: ten times the most there are in public
documents."""

OPENAPI_SCHEMAS_MAX: Final = 200
"""Schemas that the schema of one body is made of, looked through for its members."""

OPENAPI_OPERATIONS_KEPT_MAX: Final = 1_000
"""Operations that a worker keeps ready to be called: some KiB each."""

OPENAPI_DOCUMENTS_KEPT_SIZE_CHARS_MAX: Final = 4_194_304
"""Text of the documents whose data a worker keeps: data takes some ten times the memory. A larger one is read again for
each further operation of it."""
