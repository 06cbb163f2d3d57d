"""Support: the bounds of documents, inputs and requests."""

from typing import Final

DOCUMENT_SIZE_BYTES_MAX: Final = 1_048_576
"""A workflow document. Real ones are 1-50 KB; a mebibyte compiles in well under a second."""

DOCUMENT_DEPTH_MAX: Final = 128
"""Nesting of a document's data. Deeper than any readable document; keeps recursive descent off the C stack's end."""

DOCUMENT_NODES_MAX: Final = 200_000
"""Values in a document after aliases are expanded, so that a few nested aliases cannot become gigabytes."""

DOCUMENT_KEY_SIZE_MAX: Final = 1_024
"""Characters of one key. Task names are keys and become parts of every reference; nobody reads longer ones."""

DURATION_MS_MAX: Final = 1_000 * 365 * 24 * 3600 * 1000
"""A literal duration, either way: a thousand years. Keeps deadlines far from the end of 64 bits."""

PROBLEMS_MAX: Final = 100
"""Problems reported for one document. A broken document repeats itself; a reply must stay readable."""

DOCUMENT_COMPILE_STEPS_MAX: Final = 6_000_000
"""Steps of compiling all expressions and schemas of a document, 20 to 35 ns each: with all else below half a second."""

INPUT_SIZE_BYTES_MAX: Final = 4_194_304
"""JSON text of an execution's input. The default message bound of gRPC clients."""

EXECUTION_ID_SIZE_BYTES_MAX: Final = 255
"""An execution id in UTF-8: fits a file name and an index page."""

REQUEST_SIZE_BYTES_MAX: Final = 16_777_216
"""A whole gRPC request; a batch of 100 ordinary executions is about 100 KB."""

BATCH_EXECUTIONS_MAX: Final = 1_000
"""Executions in one ExecuteAsyncBatch, so that one call never holds a worker for long."""
