"""Stage 2, compile: a checked document together with the texts from elsewhere that it needs.

Theory of operation: a function from elsewhere is a document of its own, with one task. It is read and checked like
those of `use.functions`, and called like them; it may need further ones. A schema from elsewhere is read, and compiled
like one that stands in the document. What is still missing is told all at once, as far as it can be known.

Rules: such a function knows nothing of its caller's `use`, and no secrets: it comes from somebody else. It means the
same whoever calls it, so its mode is strict, and no extension extends its tasks. Its problems are told at the call that
needs it.
"""

cimport cython

from itertools import islice


@cython.internal
@cython.final
cdef class Linking:
    """The texts of one document, read and checked in steps."""

    cdef Document document
    cdef dict given
    """Texts by reference."""
    cdef list wanted
    """Resources in the order in which they are met."""
    cdef dict described
    """Descriptions by reference."""
    cdef Py_ssize_t at
    """The one that is being looked at."""
    cdef dict missing
    """By reference: a text that is needed as two things is told once."""
    cdef list problems
    cdef Reading reading
    cdef Checker checker

    def __cinit__(self, Checker checker, dict given):
        cdef ExternalResource resource
        self.document = checker.document
        self.given = given
        self.wanted = []
        self.missing = {}
        self.problems = []
        self.document.functions = dict(checker.use.get("functions", ()))
        self.document.texts = {}
        self.document.origins = {}
        self.document.schemas_elsewhere = {}
        self.described = {}
        for resource in (checker.resources or {}).values():
            resource.line, resource.column = self.document.position(resource.pointer, False)
            self.wanted.append(resource)
        self.describe(checker, None)

    cdef bint step(self, int budget) except -1:
        """Goes on with one text; True once the document has all its functions. Raises InvalidWorkflow,
        ResourcesMissing."""
        cdef ExternalResource resource
        if self.at == len(self.wanted):
            return self.end()
        resource = <ExternalResource>self.wanted[self.at]
        if resource.reference not in self.given:
            self.missing.setdefault(resource.reference, resource)
            return self.settle()
        try:
            if self.reading is None:
                self.read(resource)
            elif self.checker is None:
                if not self.reading.step(budget * READING_UNITS_PER_STEP):
                    return False
                if resource.kind == "schema":
                    self.take_schema(resource)
                else:
                    self.checker = self.checker_of(self.reading.document)
            elif self.checker.step(budget):
                self.take(resource)
        except InvalidWorkflow as error:
            self.fault(resource, error.problems)
            self.settle()
        return False

    cdef int read(self, ExternalResource resource) except -1:
        self.reading = Reading(self.given[resource.reference])
        self.reading.document.is_stored = self.reading.document.is_paid = self.document.is_stored
        self.reading.document.origin = resource
        self.reading.document.given = self.given
        self.reading.document.default_catalog = self.document.default_catalog
        self.reading.document.refuse = self.document.refuse
        return 0

    cdef int take_schema(self, ExternalResource resource) except -1:
        """A text that is read: what it says is a schema."""
        cdef Document text = self.reading.document
        cdef str why = None
        if text.problems:
            self.fault(resource, text.problems)
            return self.settle()
        try:
            compiled_schema(self.document, text.root)
        except TooCostly as error:
            why = f"compiling it takes too much: {error}"
        except InvalidSchema as error:
            why = f"{'at ' + error.pointer + ': ' if error.pointer else ''}{error.reason}"
        if why is not None:
            self.problem("invalid-schema", resource, f"the schema at {resource.url} is none: {why}")
        self.document.schemas_elsewhere[resource.reference] = text.root
        self.document.texts[resource.reference] = self.given[resource.reference]
        return self.settle()

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
        self.document.origins[resource.reference] = resource
        for further in (self.checker.resources or {}).values():
            if self.is_wanted(further):
                continue
            if len(self.wanted) == RESOURCES_PER_DOCUMENT_MAX:
                self.problem("too-many-resources", resource, f"the function at {resource.url} needs one more text from "
                             f"elsewhere than the {RESOURCES_PER_DOCUMENT_MAX} that a document may need")
                break
            further.pointer, further.line, further.column = resource.pointer, resource.line, resource.column
            self.wanted.append(further)
        self.describe(self.checker, resource)
        return self.settle()

    cdef int describe(self, Checker checker, ExternalResource function) except -1:
        """Takes a text's descriptions in. Too many are no fault: the calls ask for them."""
        cdef ExternalResource resource
        for resource in (checker.described or {}).values():
            if function is None:
                resource.line, resource.column = self.document.position(resource.pointer, False)
            else:
                resource.pointer, resource.line, resource.column = function.pointer, function.line, function.column
            self.described.setdefault(resource.reference, resource)
        return 0

    cdef int pin(self) except -1:
        """Keeps the descriptions that there are, and misses the others if somebody can get them."""
        cdef ExternalResource resource
        self.document.is_pinned = len(self.described) <= DESCRIPTIONS_PER_DOCUMENT_MAX
        for resource in islice(self.described.values(), DESCRIPTIONS_PER_DOCUMENT_MAX):
            if self.given.get(resource.reference) is not None:
                for reference in (resource.reference, resource.location_reference):
                    if reference in self.given:
                        self.document.texts[reference] = self.given[reference]
                continue
            self.document.is_pinned = False
            if self.document.pins and resource.reference not in self.given:
                self.missing.setdefault(resource.reference, resource)
        return 0

    cdef bint is_wanted(self, ExternalResource further) except -1:
        cdef ExternalResource resource
        for resource in self.wanted:
            if resource.kind == further.kind and resource.reference == further.reference:
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
        """What is wrong with a text, told at the place that needs it."""
        cdef Problem problem
        cdef str message
        for problem in problems:
            message = (f"the {resource.kind} at {resource.url} is none: {problem.pointer or '/'} (line {problem.line}, "
                       f"column {problem.column}) [{problem.code}]: {problem.message}")
            if resource.kind == "schema":
                self.problem("invalid-schema", resource, message)
            else:
                self.problem("invalid-function", resource, message)
        return 0

    cdef bint end(self) except -1:
        cdef ExternalResource first
        cdef tuple fault
        if self.wanted and not self.problems and not self.missing:
            fault = fault_of_extents(Extents(self.document, self.document.functions), self.document.root)
            if fault is not None:
                first = <ExternalResource>self.wanted[0]
                self.problem(fault[0], first, fault[1])
        if self.problems:
            raise InvalidWorkflow(self.problems[:PROBLEMS_MAX])
        self.pin()
        if self.missing:
            raise ResourcesMissing(self.missing.values())
        return True
