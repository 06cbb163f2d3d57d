"""Stage 2, compile: the verbs that tell the problems of a document, and make no plan of it."""


def validate_in_steps(text, int budget):
    """Validates as `validate` does and returns what it returns, but yields after each step of about `budget` tasks."""
    cdef Checker checker
    try:
        checker = Checker(read_document(text))
    except InvalidWorkflow as error:
        return error.problems
    while not checker.step(budget):
        yield
    return tuple(checker.problems_found())


def validate(text, bint warnings=False):
    """All problems of a document, `unsupported` ones included; empty if it would compile."""
    cdef Checker checker
    try:
        checker = Checker(read_document(text))
    except InvalidWorkflow as error:
        return error.problems
    while not checker.step(BUDGET_MAX):
        pass
    if not warnings:
        return tuple(checker.problems_found())
    doubt_resources(checker)
    return tuple(sorted(checker.problems_found() + warnings_of(checker), key=problem_key))
