"""Stage 2, compile: what the expressions and schemas of a document cost to compile, counted in steps.

Rules: a document comes from a stranger and is compiled by a worker that serves everybody. All parts of one document
share its steps, no part takes more than a part's, and no part is compiled twice: what does not compile is remembered
as well. The steps of a document are counted once: when its plan is built, and when a stored document is compiled again,
which was accepted under bounds that may have been others, each part has the bound of one that stands alone.
"""

from fastrunner._jq cimport Program, compile_within
from fastrunner._jq import ExpressionProblem as _ExpressionProblem
from fastrunner.base.limits import (
    DOCUMENT_COMPILE_STEPS_MAX as _DOCUMENT_COMPILE_STEPS_MAX,
    EXPRESSION_COMPILE_STEPS_MAX as _EXPRESSION_COMPILE_STEPS_MAX,
    EXPRESSION_SIZE_BYTES_MAX as _EXPRESSION_SIZE_BYTES_MAX,
    SCHEMA_COMPILE_STEPS_MAX as _SCHEMA_COMPILE_STEPS_MAX,
)

# A part is compiled in one go: below 20 ms. Sixty-four kilobytes of ordinary jq take less.
cdef long long STEPS_PART_MAX = _DOCUMENT_COMPILE_STEPS_MAX // 12
# Reading an expression's text, which its own steps do not count: one expression, and each of its characters.
cdef enum:
    STEPS_EXPRESSION = 150
    STEPS_CHARACTER = 4


class TooCostly(Exception):
    """The steps of a document, or of one of its parts, are used up."""


cdef long long steps_of_part(Document document, long long alone) except -1:
    """What the next part may take; `alone` is its bound where it stands for itself."""
    if document.is_paid:
        return alone
    return min(document.steps_left, STEPS_PART_MAX)


cdef int spend_steps(Document document, long long allowed, long long left) except -1:
    """Takes what a part used from the document's steps. Raises TooCostly."""
    if document.is_paid:
        return 0
    document.steps_left -= allowed - left
    if left < 0 and allowed == STEPS_PART_MAX:
        raise TooCostly(f"this part alone takes more than {STEPS_PART_MAX} steps")
    if left < 0:
        raise TooCostly(f"its expressions and schemas take more than {_DOCUMENT_COMPILE_STEPS_MAX} steps, used up here")
    return 0


cdef Program program_of(Document document, str text):
    """The program of a text, compiled once for a document. Raises ExpressionProblem, each time the same, or
    TooCostly."""
    cdef object known = document.programs.get(text)
    if known is None:
        known = new_program(document, text, False)
        document.programs[text] = known
    if type(known) is not Program:
        raise known.with_traceback(None)
    return <Program>known


cdef object new_program(Document document, str text, bint hinting):
    """The program of a text, or the problem that it is none."""
    cdef long long allowed = steps_of_part(document, _EXPRESSION_COMPILE_STEPS_MAX)
    cdef long long left = allowed
    cdef object made = None
    if not document.is_paid:
        left -= STEPS_EXPRESSION + STEPS_CHARACTER * min(len(text), <Py_ssize_t>_EXPRESSION_SIZE_BYTES_MAX)
    if left >= 0:
        try:
            made = compile_within(text, &left, hinting)
        except _ExpressionProblem as problem:
            made = problem
    spend_steps(document, allowed, left)
    return made


cdef object explained(Document document, str text):
    """The problem of a text that does not compile, with hints, worked out once: for who will read it."""
    cdef object known = document.programs[text]
    if not getattr(known, "is_explained", False):
        known = new_program(document, text, True)
        known.is_explained = True
        document.programs[text] = known
    return known


cdef Schema compiled_schema(Document document, object section_document):
    """The schema that stands in a document, compiled once for it. Raises InvalidSchema, each time the same, or
    TooCostly."""
    cdef object known
    cdef long long allowed, left
    if document.schemas is None:
        document.schemas = {}
    # The document keeps its parts alive, so that none gets the identity of another.
    known = document.schemas.get(id(section_document))
    if known is None:
        allowed = left = steps_of_part(document, _SCHEMA_COMPILE_STEPS_MAX)
        try:
            known = schema_within(section_document, &left)
        except InvalidSchema as error:
            known = error
        spend_steps(document, allowed, left)
        document.schemas[id(section_document)] = known
    if isinstance(known, InvalidSchema):
        raise known.with_traceback(None)
    return <Schema> known
