"""Stage 2, compile: the verbs that tell the problems of a document, and make no plan of it.

Rule: they know no runner, so they take what its settings decide for what a document may rely on.
"""

# Stands for the default catalog of whatever runner the document is for.
cdef str ANY_CATALOG = "https://catalog.invalid"


cdef Checker lone_checker(object text):
    """Raises InvalidWorkflow for text that does not parse."""
    cdef Document document = read_document(text)
    document.default_catalog = ANY_CATALOG
    return Checker(document)


def validate_in_steps(text, int budget):
    """Validates as `validate` does and returns what it returns, but yields after each step of about `budget` tasks."""
    cdef Checker checker
    try:
        checker = lone_checker(text)
    except InvalidWorkflow as error:
        return error.problems
    while not checker.step(budget):
        yield
    return tuple(checker.problems_found())


def validate(text, bint warnings=False):
    """All problems of a document, `unsupported` ones included; empty if it would compile."""
    cdef Checker checker
    try:
        checker = lone_checker(text)
    except InvalidWorkflow as error:
        return error.problems
    while not checker.step(BUDGET_MAX):
        pass
    if not warnings:
        return tuple(checker.problems_found())
    doubt_resources(checker)
    return tuple(sorted(checker.problems_found() + warnings_of(checker), key=problem_key))
