"""Stage 2, compile: a checked document together with the texts from elsewhere that it needs.

Theory of operation: a function from elsewhere is a document of its own, with one task. It is read and checked like
those of `use.functions`, and called like them; it may need further ones. What is still missing is told all at once, as
far as it can be known.

Rules: such a function knows nothing of its caller's `use`, and no secrets: it comes from somebody else. It means the
same whoever calls it, so its mode is strict. Its problems are told at the call that needs it.
"""

cimport cython


@cython.internal
@cython.final
cdef class Linking:
    """The texts of one document, read and checked in steps."""

    cdef Document document
    cdef dict given
    """Texts by reference."""
    cdef list wanted
    """Resources in the order in which they are met."""
    cdef Py_ssize_t at
    """The one that is being looked at."""
    cdef list missing
    cdef list problems
    cdef Reading reading
    cdef Checker checker

    def __cinit__(self, Checker checker, dict given):
        cdef ExternalResource resource
        self.document = checker.document
        self.given = given
        self.wanted = []
        self.missing = []
        self.problems = []
        self.document.functions = dict(checker.use.get("functions", ()))
        self.document.texts = {}
        if checker.resources is not None:
            for resource in checker.resources.values():
                resource.line, resource.column = self.document.position(resource.pointer, False)
                self.wanted.append(resource)

    cdef bint step(self, int budget) except -1:
        """Goes on with one text; True once the document has all its functions. Raises InvalidWorkflow,
        ResourcesMissing."""
        cdef ExternalResource resource
        if self.at == len(self.wanted):
            return self.end()
        resource = <ExternalResource>self.wanted[self.at]
        if resource.reference not in self.given:
            self.missing.append(resource)
            return self.settle()
        try:
            if self.reading is None:
                self.reading = Reading(self.given[resource.reference])
                self.reading.document.is_stored = self.reading.document.is_paid = self.document.is_stored
                self.reading.document.is_function = True
                self.reading.document.refuse = self.document.refuse
            elif self.checker is None:
                if self.reading.step(budget * READING_UNITS_PER_STEP):
                    self.checker = self.checker_of(self.reading.document)
            elif self.checker.step(budget):
                self.take(resource)
        except InvalidWorkflow as error:
            self.fault(resource, error.problems)
            self.settle()
        return False

    cdef Checker checker_of(self, Document function):
        """All texts of a document share its steps, and what is compiled of them."""
        function.steps_left = self.document.steps_left
        function.programs = self.document.programs
        if self.document.schemas is None:
            self.document.schemas = {}
        function.schemas = self.document.schemas
        return Checker(function)

    cdef int take(self, ExternalResource resource) except -1:
        """A text that is checked: its task is a function, and what it needs is needed."""
        cdef ExternalResource further
        cdef list problems = self.checker.problems_found()
        self.document.steps_left = self.checker.document.steps_left
        if problems:
            self.fault(resource, problems)
        self.document.functions[resource.reference] = self.checker.document.root
        self.document.texts[resource.reference] = self.given[resource.reference]
        for further in (self.checker.resources or {}).values():
            if further.reference in self.document.functions or self.is_wanted(further.reference):
                continue
            if len(self.wanted) == RESOURCES_PER_DOCUMENT_MAX:
                self.problem("too-many-resources", resource, f"the function at {resource.url} needs one more text from "
                             f"elsewhere than the {RESOURCES_PER_DOCUMENT_MAX} that a document may need")
                break
            further.pointer, further.line, further.column = resource.pointer, resource.line, resource.column
            self.wanted.append(further)
        return self.settle()

    cdef bint is_wanted(self, str reference) except -1:
        cdef ExternalResource resource
        for resource in self.wanted:
            if resource.reference == reference:
                return True
        return False

    cdef int settle(self) except -1:
        self.at += 1
        self.reading = None
        self.checker = None
        return 0

    cdef int problem(self, str code, ExternalResource resource, str message) except -1:
        self.problems.append(Problem(code, resource.pointer, resource.line, resource.column, message))
        return 0

    cdef int fault(self, ExternalResource resource, object problems) except -1:
        """What is wrong with a text, told at the call."""
        cdef Problem problem
        for problem in problems:
            self.problem("invalid-function", resource,
                         f"the function at {resource.url} is none: {problem.pointer or '/'} (line {problem.line}, "
                         f"column {problem.column}) [{problem.code}]: {problem.message}")
        return 0

    cdef bint end(self) except -1:
        cdef ExternalResource first
        cdef tuple fault
        if not self.wanted:
            return True
        if not self.problems and not self.missing:
            fault = fault_of_extents(Extents(self.document.functions), self.document.root)
            if fault is not None:
                first = <ExternalResource>self.wanted[0]
                self.problem(fault[0], first, fault[1])
        if self.problems:
            raise InvalidWorkflow(self.problems[:PROBLEMS_MAX])
        if self.missing:
            raise ResourcesMissing(self.missing)
        return True
