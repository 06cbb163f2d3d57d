"""Stage 2, compile: checks a document against the shapes and collects every problem.

Rules: one pass over the data, no pass ends early; a valid document allocates next to nothing. The pass goes down the
C stack until its budget is spent; then every loop it is in leaves what remains of it as a Rest and returns, so that a
large document is checked in steps. Problems are kept as code, pointer and message, in document order, and get their
positions and their bound at the end. Unsupported features are checked like all others and then refused as
`unsupported`, so that they hide nothing. Expressions are compiled here, once per distinct text, and handed to the plan
in `Document.programs`.
"""

cimport cython

from cpython.dict cimport PyDict_Next
from cpython.ref cimport PyObject

from fastrunner._jq cimport Program
from fastrunner._jq import ExpressionProblem as _ExpressionProblem

# Problems are found in document order but for those of reusable definitions, so a few spare ones are enough.
cdef Py_ssize_t PROBLEMS_RAW_MAX = 2 * PROBLEMS_MAX
# From this length on, what an expression's `${ }` holds is remembered: aliases and references repeat the same string.
cdef Py_ssize_t TEXT_REMEMBERED_MIN = 256

# What work costs, in points of about 50 ns; expressions and text pay per character as well.
cdef enum:
    COST_BUDGET = 400  # what one of a step's budget buys: about 20 us
    COST_VALUE = 1
    COST_TASK = 20
    COST_EXPRESSION = 60
    COST_CHARACTER = 2
    COST_SCHEMA = 2000
    COST_PROBLEM = 400
    COST_HINTS = 16000
    STEPS_PER_POINT = 2

cdef int BUDGET_MAX = 2 ** 31 - 1

# The loops that a step may leave.
cdef enum:
    LOOP_MEMBERS
    LOOP_ITEMS
    LOOP_TEMPLATE

cdef Bindings NO_BINDINGS = bindings_of(())

# What other runners of the language have, and what it is here.
cdef dict FOREIGN_VARIABLES = {"data": " ($data is Zigflow's; a task's input is $input, or `.` where nothing else is)"}


@cython.internal
@cython.final
cdef class Rest:
    """What remains of a loop over an object or a list, and what its checker knew there."""

    cdef int loop
    cdef Shape shape
    cdef object container
    cdef Py_ssize_t at
    cdef str pointer
    cdef Position position
    cdef Bindings bindings
    cdef dict siblings
    cdef Py_ssize_t nesting
    cdef Py_ssize_t place
    """How many problems of the step's part stood before it when it was left."""
    cdef Py_ssize_t after
    """How many of all problems known come after it in the document."""


@cython.internal
@cython.final
cdef class Checker:
    cdef Document document
    cdef dict use
    cdef list problems
    """What is known, in document order."""
    cdef list found
    """The problems of the part that is being checked."""
    cdef Py_ssize_t room
    """How many of them can matter."""
    cdef set seen
    cdef list rests
    """What is to be checked, the first of it last."""
    cdef list left_over
    """The rests of the part that is being checked, in document order."""
    cdef long long left
    cdef set uses
    cdef dict texts
    cdef Position position
    cdef Bindings bindings
    cdef dict siblings
    cdef Py_ssize_t tasks
    cdef Py_ssize_t nesting
    cdef bint is_loose
    cdef bint is_over
    """The document is too costly to go on."""
    cdef dict doubts
    """Messages of warnings by code and pointer."""
    cdef dict resources
    """What the document needs from elsewhere, by kind and reference; None if nothing."""
    cdef dict described
    """The descriptions that it can do without, by reference; None if it names none."""
    cdef int guesses
    """What was done only to find out whether a warning is right."""

    def __cinit__(self, Document document):
        self.document = document
        self.problems = []
        self.found = []
        self.room = PROBLEMS_RAW_MAX
        self.seen = set()
        self.rests = []
        self.left_over = []
        self.uses = set()
        self.texts = {}
        self.doubts = {}
        self.position = AT_DO
        self.bindings = NO_BINDINGS
        self.begin(document.root)

    # --- steps ---

    cdef int begin(self, object root) except -1:
        """Finds what stands at the root; the rest is for `step`."""
        self.left = 0
        if self.document.origin is not None:
            self.use = self.document.use = {}
            self.check(TASK, root, NULL)
        elif is_foreign_dialect(root):
            self.problem("foreign-dialect", NULL, False,
                         "this is a Serverless Workflow 0.8 or 0.9 document (states, specVersion), a different "
                         "language; fastrunner runs DSL 1.x, whose documents have `document` and `do`: migrate it")
        else:
            self.use = self.document.use = use_groups(root)
            self.is_loose = is_loose_mode(root)
            self.check(ROOT, root, NULL)
        return self.settle(0)

    cdef bint step(self, int budget) except -1:
        """Checks a part of the document, of about `budget` tasks or expressions; True when nothing is left."""
        cdef Rest rest
        self.left = <long long>budget * COST_BUDGET
        while self.rests and self.left > 0:
            rest = <Rest>self.rests.pop()
            self.room = PROBLEMS_RAW_MAX - (len(self.problems) - rest.after)
            if self.room > 0:
                self.resume(rest)
                self.settle(rest.after)
        return not self.rests

    cdef int resume(self, Rest rest) except -1:
        cdef Path path
        path.parent = NULL
        path.key = <PyObject*>rest.pointer
        path.index = PATH_POINTER
        self.position = rest.position
        self.bindings = rest.bindings
        self.siblings = rest.siblings
        self.nesting = rest.nesting
        if rest.loop == LOOP_MEMBERS:
            return self.members(rest.shape, <dict>rest.container, rest.at, &path)
        if rest.loop == LOOP_ITEMS:
            return self.items(rest.shape, <list>rest.container, rest.at, &path)
        return self.template(rest.container, rest.at, &path)

    cdef int leave(self, int loop, Shape shape, object container, Py_ssize_t at, Path* path) except -1:
        """Leaves a loop for another step."""
        cdef Rest rest = Rest.__new__(Rest)
        rest.loop = loop
        rest.shape = shape
        rest.container = container
        rest.at = at
        rest.pointer = pointer_of(path)
        rest.position = self.position
        rest.bindings = self.bindings
        rest.siblings = self.siblings
        rest.nesting = self.nesting
        rest.place = len(self.found)
        self.left_over.append(rest)
        return 0

    cdef int settle(self, Py_ssize_t after) except -1:
        """Puts a part's problems before those that come after it, and its rests before those left already."""
        cdef Py_ssize_t count = len(self.found)
        cdef Rest rest
        if count:
            self.problems[len(self.problems) - after:len(self.problems) - after] = self.found
            self.found = []
        if self.is_over:
            self.rests.clear()
            self.left_over.clear()
        while self.left_over:
            rest = <Rest>self.left_over.pop()
            rest.after = after + count - rest.place
            self.rests.append(rest)
        return 0

    cdef list problems_found(self):
        """All problems, in document order, at most PROBLEMS_MAX."""
        cdef list problems = list(self.document.problems)
        for code, pointer, key, message in self.problems[:PROBLEMS_RAW_MAX]:
            line, column = self.document.position(pointer, key)
            problems.append(Problem(code, pointer, line, column, message))
        problems.sort(key=problem_key)
        return problems[:PROBLEMS_MAX]

    # --- problems ---

    cdef int problem(self, str code, Path* path, bint key, str message) except -1:
        """Notes a problem at a value, or at its key."""
        cdef tuple problem
        self.left -= COST_PROBLEM
        if len(self.found) < self.room:
            problem = (code, pointer_of(path), key, message)
            if problem not in self.seen:
                self.seen.add(problem)
                self.found.append(problem)
        if len(self.found) >= self.room:
            # Nobody will read a further one: the pass leaves its loops, and `step` what they left.
            self.left = 0
        return 0

    cdef int too_costly(self, object error, Path* path) except -1:
        """Ends the pass where the document's steps are used up."""
        self.problem("document-too-costly", path, False,
                     f"compiling this document takes too much: {error}; make its expressions and schemas fewer or "
                     "simpler, or split the workflow")
        self.is_over = True
        self.left = 0
        return 0

    cdef str suggestion(self, str word, object candidates):
        """What was meant, as long as somebody will read it."""
        if len(self.found) >= self.room:
            return ""
        self.left -= COST_PROBLEM
        return did_you_mean(word, candidates)

    cdef int unsupported(self, str feature, Path* path, bint key) except -1:
        return self.problem("unsupported", path, key,
                            f"{feature}: part of the DSL, but this version of fastrunner does not execute it yet")

    cdef int unknown_key(self, str key, dict fields, Path* path) except -1:
        cdef str allowed = f"allowed: {listed(fields)}" if fields else "no keys are allowed here"
        if fields is not None and "with" in fields and len(fields) == 1:
            allowed = f"it belongs under `with`: {{with: {{{shown(key)[1:-1]}: ...}}}}"
        if key == "<<":
            allowed = "merge keys are YAML 1.1, documents are YAML 1.2: repeat the keys or alias a whole value"
        return self.problem("unknown-key", path, True,
                            f"unknown key {shown(key)}{self.suggestion(key, fields or ())}; {allowed}")

    cdef int conflict(self, dict value, list keys, str message, Path* path) except -1:
        """Keys that exclude each other: the problem stands at the second one."""
        cdef Path inner
        cdef list in_order = [key for key in value if key in keys]
        cdef str second = in_order[1]
        inner.parent = path
        inner.key = <PyObject*>second
        inner.index = 0
        return self.problem("conflicting-keys", &inner, True, f"{message}; here are {listed(in_order)}")

    # --- values ---

    cdef int check(self, Shape shape, object value, Path* path) except -1:
        cdef object kind = type(value)
        if shape.types == IS_ANY:
            if shape.rule == RULE_SCHEMA:
                return check_schema(self, value, path)
            return self.template(value, 0, path) if shape.is_template else 0
        if kind is str:
            if shape.types & IS_TEXT:
                return check_text(self, shape, value, path)
        elif kind is dict:
            if shape.types & IS_OBJECT:
                return self.check_object(shape, value, path)
        elif kind is list:
            if shape.types & IS_LIST:
                return self.check_list(shape, value, path)
        elif kind is bool:
            if shape.types & IS_BOOLEAN:
                return 0
        elif value is not None and shape.types & IS_INTEGER and is_integral(value):
            return self.check_integer(shape, value, path)
        if shape.types & IS_INTEGER and is_vast(value):
            return self.problem("out-of-range", path, False, DURATION_TOO_LONG if shape.rule == RULE_DURATION else
                                f"expected {shape.expected} from {shape.low} to {shape.high}")
        return self.problem("wrong-type", path, False, f"expected {shape.expected}, not {json_type_name(value)}")

    cdef int check_integer(self, Shape shape, object value, Path* path) except -1:
        if not shape.low <= value <= shape.high:
            self.problem("out-of-range", path, False,
                         f"expected {shape.expected} from {shape.low} to {shape.high}")
        return 0

    cdef int check_object(self, Shape shape, dict value, Path* path) except -1:
        if len(value) < shape.size_min:
            return self.problem("empty-value", path, False, f"expected {shape.expected}; this one is empty")
        if shape.is_template:
            return self.template(value, 0, path)
        if shape.rule == RULE_TASK:
            return check_task(self, value, path)
        if shape.fields is None and shape.members is None:
            return 0
        if shape.rule == RULE_NAMED:
            return check_named(self, shape, value, path)
        self.bound_members(shape, value, path)
        if shape.rule != RULE_NONE:
            check_rule(self, shape, value, path)
        if shape.rule != RULE_SCHEME or "use" not in value:
            self.check_required(shape, value, path)
        for choice in shape.choices:
            self.check_choice(<tuple>choice, value, path)
        return 0

    cdef int bound_members(self, Shape shape, dict value, Path* path) except -1:
        """The members of an object, with what it binds for them."""
        cdef Bindings outer = self.bindings
        if shape.binds != BINDS_NOTHING:
            self.bindings = bind(outer, shape.binds, value)
        self.members(shape, value, 0, path)
        self.bindings = outer
        return 0

    cdef int members(self, Shape shape, dict value, Py_ssize_t at, Path* path) except -1:
        """The members of an object from one on, as PyDict_Next counts them."""
        cdef Path inner
        cdef PyObject* key = NULL
        cdef PyObject* member = NULL
        cdef Field field
        inner.parent = path
        inner.index = 0
        while True:
            if self.left <= 0:
                return self.leave(LOOP_MEMBERS, shape, value, at, path)
            if not PyDict_Next(value, &at, &key, &member):
                return 0
            self.left -= COST_VALUE
            inner.key = key
            field = <Field>shape.fields.get(<object>key) if shape.fields is not None else None
            if field is not None:
                self.check_field(field, <object>member, &inner)
            elif shape.members is not None:
                self.check(shape.members, <object>member, &inner)
            else:
                self.unknown_key(<str>key, shape.fields, &inner)

    cdef int check_field(self, Field field, object value, Path* path) except -1:
        cdef Position position = self.position
        cdef Bindings bindings = self.bindings
        if field.unsupported is not None and not (value == {} or value == []):
            self.unsupported(field.unsupported, path, True)
        if field.position is not None:
            self.position = field.position
        if field.is_reusable:
            self.bindings = None
        self.check(field.shape, value, path)
        self.position = position
        self.bindings = bindings
        return 0

    cdef int check_required(self, Shape shape, dict value, Path* path) except -1:
        cdef Field field
        for key in shape.required:
            if key not in value:
                field = shape.fields[key]
                self.problem("missing-key", path, True,
                             f"the required key {shown(key)} is missing: {field.shape.expected}")
        return 0

    cdef int check_choice(self, tuple choice, dict value, Path* path) except -1:
        """Exactly one of the keys of a choice."""
        cdef list present = [key for key in choice if key in value]
        if not present:
            self.problem("missing-key", path, True, f"one of the keys {listed(choice)} is required")
        elif len(present) > 1:
            self.conflict(value, present, f"only one of {listed(choice)} may be given", path)
        return 0

    cdef int check_list(self, Shape shape, list value, Path* path) except -1:
        if len(value) < shape.size_min:
            return self.problem("empty-value", path, False, f"expected {shape.expected}; this one is empty")
        if shape.is_template:
            return self.template(value, 0, path)
        if shape.rule == RULE_TASKS or shape.rule == RULE_BRANCHES:
            return check_tasks(self, shape, value, path)
        if shape.rule == RULE_CASES:
            check_defaults(self, value, path)
        if shape.rule == RULE_EXTENSIONS:
            check_extensions(self, path)
        return self.items(shape, value, 0, path)

    cdef int items(self, Shape shape, list value, Py_ssize_t at, Path* path) except -1:
        """The items of a list from one on."""
        cdef Path inner
        inner.parent = path
        inner.key = NULL
        for inner.index in range(at, len(value)):
            if self.left <= 0:
                return self.leave(LOOP_ITEMS, shape, value, inner.index, path)
            self.left -= COST_VALUE
            self.check(shape.items, value[inner.index], &inner)
        return 0

    cdef int template(self, object value, Py_ssize_t at, Path* path) except -1:
        """Data whose strings may be expressions in `${ }`; of an object or a list, what it holds from one on."""
        if type(value) is str:
            return self.check_value(value, path)
        if type(value) is dict:
            return self.template_members(value, at, path)
        return self.template_items(value, at, path) if type(value) is list else 0

    cdef int template_members(self, dict value, Py_ssize_t at, Path* path) except -1:
        cdef Path inner
        cdef PyObject* key = NULL
        cdef PyObject* member = NULL
        inner.parent = path
        inner.index = 0
        while True:
            if self.left <= 0:
                return self.leave(LOOP_TEMPLATE, None, value, at, path)
            if not PyDict_Next(value, &at, &key, &member):
                return 0
            self.left -= COST_VALUE
            inner.key = key
            self.template(<object>member, 0, &inner)

    cdef int template_items(self, list value, Py_ssize_t at, Path* path) except -1:
        cdef Path inner
        inner.parent = path
        inner.key = NULL
        for inner.index in range(at, len(value)):
            if self.left <= 0:
                return self.leave(LOOP_TEMPLATE, None, value, inner.index, path)
            self.left -= COST_VALUE
            self.template(value[inner.index], 0, &inner)
        return 0

    # --- expressions ---

    cdef object text_of(self, str value):
        """`expression_text`, scanned once per long string."""
        cdef object text
        if len(value) < TEXT_REMEMBERED_MIN:
            return expression_text(value)
        if value in self.texts:
            return self.texts[value]
        text = expression_text(value)
        self.texts[value] = text
        return text

    cdef int check_value(self, str value, Path* path) except -1:
        """A string that is an expression if it is one `${ }` as a whole, and text otherwise."""
        cdef Py_ssize_t start = expression_start(value)
        cdef object text
        if start < 0:
            if is_remarkable(value):
                doubt_text(self, value, path)
            return self.check_candidate(value, path)
        text = self.text_of(value)
        return check_opened(self, value, start, path) if text is None else self.check_expression(text, path)

    cdef int check_candidate(self, str value, Path* path) except -1:
        """Text which loose mode takes for an expression if it is one: no problem, but it costs what one costs."""
        if self.is_loose:
            self.compiled(value.strip(), path)
        return 0

    cdef int unbalanced(self, Path* path) except -1:
        return self.problem("invalid-expression", path, False,
                            "the expression is not one `${ ... }`: its brackets or quotes do not match, or text stands "
                            "around it; build text with jq: ${ \"Hello \\(.name)\" }")

    cdef int check_bare(self, str value, Path* path) except -1:
        """An expression by type: one `${ }` or bare."""
        cdef object text = self.text_of(value)
        if text is None and expression_start(value) >= 0:
            return self.unbalanced(path)
        return self.check_expression(value.strip() if text is None else text, path)

    cdef int check_wrapped(self, str value, Path* path) except -1:
        """An expression that has to stand in `${ }`, on one line (the official schema's pattern)."""
        cdef object text = self.text_of(value)
        if not is_wrapped(value):
            return self.problem("invalid-format", path, False,
                                "an expression here stands in ${ }, is not empty and has no line breaks")
        if text is None:
            return self.unbalanced(path)
        return self.check_expression(text, path)

    cdef int check_expression(self, str text, Path* path) except -1:
        cdef Program program
        if not text:
            return self.problem("invalid-expression", path, False, "the expression is empty")
        program = self.compiled(text, path)
        if program is None:
            return 0 if self.is_over else self.no_expression(text, path)
        if self.bindings is None:
            return 0
        doubt_expression(self, program, self.bindings.at(self.position), path)
        return self.check_arguments(program, path)

    cdef Program compiled(self, str text, Path* path):
        """The program of a text; None if it is none, and if there are no steps left to find out."""
        cdef long long before = self.document.steps_left
        if text not in self.document.programs:
            self.left -= COST_EXPRESSION + COST_CHARACTER * len(text)
        try:
            return program_of(self.document, text)
        except _ExpressionProblem:
            return None
        except TooCostly as error:
            self.too_costly(error, path)
            return None
        finally:
            self.left -= (before - self.document.steps_left) // STEPS_PER_POINT

    cdef int no_expression(self, str text, Path* path) except -1:
        """A text that does not compile. What was meant is worked out as long as somebody will read it."""
        if len(self.found) >= self.room:
            return 0
        self.left -= COST_HINTS
        try:
            error = explained(self.document, text)
        except TooCostly as costs:
            return self.too_costly(costs, path)
        return self.problem("invalid-expression", path, False,
                            f"the expression does not compile: {error.message} (character {error.offset + 1})")

    cdef int check_arguments(self, Program program, Path* path) except -1:
        """What an expression names has a value at its position. Definitions to be used elsewhere have no bindings."""
        cdef tuple scopes
        cdef str name
        cdef int code
        if not program.arguments:
            return 0
        scopes = self.bindings.at(self.position)
        for name in program.arguments:
            code = argument_code(self.position, scopes, name)
            if code >= 0:
                check_provided(self, program, name, code, path)
                continue
            if len(self.found) >= self.room:
                return 0
            where = f"${name} (character {program.argument_offset(name) + 1})"
            available = [f"${other}" for other in dict.fromkeys((*self.position.arguments, *names_in(scopes)))]
            if code == ARGUMENT_UNAVAILABLE:
                self.problem("unavailable-variable", path, False,
                             f"{where} has no value here; available: {listed(available)}")
            else:
                hint = FOREIGN_VARIABLES.get(name) or self.suggestion("$" + name, available)
                self.problem("unknown-variable", path, False,
                             f"nothing binds {where}{hint}; available: {listed(available)}")
        return 0


cdef list names_in(tuple scopes):
    """The scoped variables, outermost first."""
    return [name for names in scopes for name in names if name is not None]


cdef dict use_groups(object root):
    """The well-formed groups of `use`, each by name."""
    cdef object use = root.get("use") if type(root) is dict else None
    cdef dict groups = {}
    if type(use) is dict:
        for group, definitions in (<dict>use).items():
            if type(definitions) is dict:
                groups[group] = definitions
            elif type(definitions) is list and group == "secrets":
                groups[group] = {name: None for name in definitions if type(name) is str}
    return groups


cdef bint is_loose_mode(object root):
    cdef object section = root.get("evaluate") if type(root) is dict else None
    return type(section) is dict and (<dict>section).get("mode") == "loose"


cdef bint is_foreign_dialect(object root):
    """Whether this is a document of the 0.x language: a state machine under `states`."""
    return type(root) is dict and "document" not in root and ("states" in root or "specVersion" in root)
