"""Stage 2, compile: the verbs: a document's text becomes a plan, at once or a step at a time.

Rules: text is read, checked and built in this order, and a document with problems never reaches the builder. A step
ends between two values, tasks or expressions, so that a large document does not hold whoever else needs the processor.
"""

cimport cython


@cython.final
cdef class Plan:
    """A compiled document; `_core.pyi` has the contract."""

    def __init__(self):
        raise TypeError("plans come from compile()")

    def render(self, Capsule capsule not None, object secrets=None):
        return render_capsule(self, capsule, secrets)

    def dump_capsule(self, Capsule capsule not None):
        return dump_capsule(self, capsule)

    def load_capsule(self, bytes data not None):
        return read_capsule(self, data)

    def __repr__(self):
        return f"Plan({self.namespace!r}, {self.name!r}, {self.version!r})"


def compile(text):
    """A document as an immutable plan. Raises InvalidWorkflow."""
    cdef Document document = read_document(text)
    cdef list problems = check_document(document)
    cdef PlanBuilder builder
    if problems:
        raise InvalidWorkflow(problems)
    builder = PlanBuilder(document)
    builder.step(1 << 40)
    return builder.plan
