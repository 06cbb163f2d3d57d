"""Stage 2, compile: the verbs: a document's text becomes a plan, at once or a step at a time.

Rules: text is read, checked and built in this order, and a document with problems never reaches the builder. A step
ends between two values, tasks or expressions, so that a large document does not hold whoever else needs the processor.
"""

cimport cython


@cython.final
cdef class Plan:
    """A compiled document; `_core.pyi` has the contract."""

    def __cinit__(self, key=None):
        if key is not KEY:
            raise TypeError("plans come from compile()")

    def schedule(self, long long now_ms):
        return render_schedule(self, now_ms)

    def render(self, Capsule capsule not None, object secrets=None, object authorization=None):
        return render_capsule(self, capsule, secrets, authorization, False)

    def render_policy(self, Capsule capsule not None, object secrets=None):
        if not asks_authorization(self, capsule):
            return None
        return render_capsule(self, capsule, secrets, None, True)

    def dump_capsule(self, Capsule capsule not None):
        return dump_capsule(self, capsule)

    def load_capsule(self, bytes data not None):
        return read_capsule(self, data)

    def __repr__(self):
        return f"Plan({self.namespace!r}, {self.name!r}, {self.version!r})"


@cython.final
cdef class Compilation:
    """A document on its way to a plan; `_core.pyi` has the contract."""

    cdef Reading reading
    cdef Checker checker
    cdef Yaml marks
    cdef Linking linking
    cdef dict texts
    cdef PlanBuilder builder

    def __init__(self, text, bint stored=False, object resources=None, object refuse=None, default_catalog=None,
                 bint pins=False):
        self.reading = Reading(text)
        self.reading.document.refuse = refuse
        self.reading.document.is_stored = self.reading.document.is_paid = stored
        self.reading.document.default_catalog = None if default_catalog is None else default_catalog.rstrip("/")
        self.reading.document.pins = pins
        self.texts = self.reading.document.given = dict(resources or {})

    def step(self, int budget):
        cdef list problems
        if self.builder is not None:
            return self.builder.plan if self.builder.step(budget) else None
        if self.checker is None:
            if self.reading.step(budget * READING_UNITS_PER_STEP):
                self.checker = Checker(self.reading.document)
            return None
        if self.linking is None:
            if not self.checker.step(budget):
                return None
            problems = self.checker.problems_found()
            if problems:
                raise InvalidWorkflow(problems)
            if (self.checker.doubts or self.checker.resources or self.is_scheduled()) and not self.mark(budget):
                return None
            self.linking = Linking(self.checker, self.texts)
        if self.linking.step(budget):
            self.builder = PlanBuilder(self.reading.document)
            self.builder.plan.warnings = tuple(warnings_of(self.checker))
            self.builder.plan.submission_warnings = self.builder.plan.warnings
            if self.is_scheduled():
                self.builder.plan.submission_warnings += (schedule_warning(self.reading.document),)
        return None

    cdef bint is_scheduled(self) except -1:
        """Whether whoever submits the document, which is valid, is told that it is executed once."""
        return "schedule" in self.reading.document.root and not self.reading.document.is_stored

    cdef bint mark(self, int budget) except -1:
        """Reads on for the positions of warnings and calls; says whether they are known."""
        cdef Document document = self.reading.document
        if document.mark is None and not document.is_json:
            if self.marks is None:
                self.marks = Yaml.__new__(Yaml)
                self.marks.open(document.text, True)
            if step_yaml(self.marks, budget * READING_UNITS_PER_STEP):
                document.mark = self.marks.mark
        return document.is_json or document.mark is not None


# More than any document within the bounds needs.
cdef int ALL_STEPS = 1 << 30


def compile(text, bint stored=False, object resources=None):
    """A document as an immutable plan. Raises InvalidWorkflow, ResourcesMissing."""
    cdef Compilation compilation = Compilation(text, stored, resources)
    cdef object plan = None
    while plan is None:
        plan = compilation.step(ALL_STEPS)
    return plan
