"""Stage 2, compile: what a document amounts to with a copy of a function wherever it is called, and of an extension at
each task that it extends.

Theory of operation: a plan holds each call of a function with a copy of the function's tasks, so a walk, its snapshots
and its events know of functions no more than of any task with tasks in it. So functions must come to an end, and the
bounds on tasks and their nesting hold for a document with all its copies. Extensions are copied in the same way.

Rules: what is looked at here has not been checked, and shapes report what is wrong with it. A function is looked at
once, however often it is called; how far one leads to another is bounded like nesting.
"""

cimport cython


@cython.internal
@cython.final
cdef class Extents:
    """How many tasks there are, and how deep their lists lie in one another, copies included."""

    cdef Document document
    cdef dict functions
    cdef ExternalResource origin
    """Where the function that is being looked at comes from; None: it stands in the document."""
    cdef list extensions
    cdef bint is_extended
    """Extensions extend the tasks that are being looked at."""
    cdef dict known
    """(tasks, depth) of each function looked at, by its name and whether its tasks are extended."""
    cdef dict added
    """The same of the extensions of each kind of task."""
    cdef list path
    """The functions being looked at, each called by the one before it: an extended one by way of an extension, too."""
    cdef str recursion
    """A function that comes to itself again, and how; None if there is none."""
    cdef str recursive
    cdef Py_ssize_t looks

    def __cinit__(self, Document document, dict functions):
        self.document = document
        self.functions = functions
        self.extensions = extensions_of(document.root)
        self.is_extended = len(self.extensions) > 0
        self.known = {}
        self.added = {}
        self.path = []

    cdef tuple of_function(self, str name):
        cdef ExternalResource caller = self.origin
        cdef ExternalResource origin = None if self.document.origins is None else self.document.origins.get(name)
        cdef bint around = self.is_extended
        cdef tuple key = (name, around and origin is None)
        if key in self.known:
            return <tuple>self.known[key]
        if key in self.path:
            if self.recursive is None:
                self.recursive = name
                self.recursion = " calls ".join([shown(each) for each, _ in [*self.path[self.path.index(key):], key]])
            return (1, 1)
        if len(self.path) > TASK_NESTING_MAX:
            return (1, TASK_NESTING_MAX + 1)
        self.path.append(key)
        self.origin, self.is_extended = origin, key[1]
        found = self.of_task(self.functions[name])
        self.origin, self.is_extended = caller, around
        self.path.pop()
        self.known[key] = found
        return found

    cdef tuple of_task(self, object task):
        cdef object tasks = 1
        cdef object depth = 0
        if type(task) is not dict:
            return (0, 0)
        self.looks += 1
        called = task.get("call")
        if type(called) is str and called not in CALLS:
            called = called_name(self.document, self.origin, called)
            if called in self.functions:
                more, deeper = self.of_function(called)
                tasks, depth = tasks + more, deeper + 1
        for items in lists_of(task):
            more, deeper = self.of_list(items)
            tasks, depth = tasks + more, max(depth, deeper)
        if self.is_extended:
            more, deeper = self.of_extensions(extension_word(task))
            tasks, depth = tasks + more, max(depth, deeper)
        return (min(tasks, TASKS_PER_DOCUMENT_MAX + 1), depth)

    cdef tuple of_extensions(self, str word):
        """What extensions add to a task of a kind. One counts for a task of its own, so that empty ones are bounded."""
        cdef object tasks = 0
        cdef object depth = 0
        if word not in self.added:
            self.is_extended = False
            for extension in self.extensions:
                if not extends(extension, word):
                    continue
                tasks += 1
                for items in ((<dict>extension).get("before"), (<dict>extension).get("after")):
                    more, deeper = self.of_list(items)
                    tasks, depth = tasks + more, max(depth, deeper)
            self.is_extended = True
            self.added[word] = (min(tasks, TASKS_PER_DOCUMENT_MAX + 1), depth)
        return <tuple>self.added[word]

    cdef tuple of_list(self, object items):
        cdef object tasks = 0
        cdef object depth = 0
        if type(items) is not list:
            return (0, 0)
        for item in <list>items:
            if type(item) is dict:
                for task in (<dict>item).values():
                    more, deeper = self.of_task(task)
                    tasks, depth = tasks + more, max(depth, deeper)
        return (min(tasks, TASKS_PER_DOCUMENT_MAX + 1), depth + 1)


cdef list lists_of(dict task):
    """The lists of tasks that a task has."""
    cdef list lists = [task.get("do"), task.get("try")]
    for holder, key in (("catch", "do"), ("fork", "branches"), ("foreach", "do")):
        section = task.get(holder)
        if type(section) is dict:
            lists.append((<dict>section).get(key))
    return lists


cdef int check_functions(Checker checker, dict functions, Path* path) except -1:
    """The names of functions are their own, none comes to itself again, and with all copies the bounds hold."""
    cdef str name
    for name in CALLS:
        if name in functions:
            member_problem(checker, "reserved-name", name,
                           f"`call: {name}` is the protocol, so this function could not be called; rename it", path)
    return check_extents(checker, functions, path)


cdef int check_extents(Checker checker, dict functions, Path* path) except -1:
    """What is wrong with a document and all copies in it is told at its functions, or at its extensions."""
    cdef Extents extents = Extents(checker.document, functions)
    cdef str code, message
    fault = fault_of_extents(extents, checker.document.root)
    checker.left -= extents.looks * COST_VALUE
    if fault is None:
        return 0
    code, message = fault
    if extents.recursive is not None:
        return member_problem(checker, code, extents.recursive, message, path)
    return checker.problem(code, path, True, message)


cdef tuple fault_of_extents(Extents extents, object root):
    """Code and message of what is wrong with a document's functions as they call one another; None if nothing is."""
    cdef object tasks, depth
    for name in extents.functions:
        extents.of_function(name)
    tasks, depth = extents.of_list(root.get("do") if type(root) is dict else None)
    if extents.recursive is not None:
        return ("recursive-function",
                f"{extents.recursion}: a function does not come to itself again, because each call is a "
                "copy of it; repeat with `for`, or with `then` within a list")
    for _, deeper in extents.known.values():
        depth = max(depth, deeper)
    if depth > TASK_NESTING_MAX:
        return ("too-deep", f"where functions are called and tasks extended, task lists are nested more than "
                            f"{TASK_NESTING_MAX} levels deep: a call is a level")
    if tasks > TASKS_PER_DOCUMENT_MAX:
        return ("too-many-tasks",
                f"with the tasks of a function at each of its calls, and those of an extension at each task that it "
                f"extends, the document has more than the {TASKS_PER_DOCUMENT_MAX} tasks that are allowed")
    return None


cdef int check_called(Checker checker, str value, Path* path) except -1:
    """What a call may name: a protocol, a function of `use`, one of a catalog, a URL; from elsewhere a way, too."""
    cdef object functions = checker.use.get("functions", ())
    cdef object catalogs = checker.use.get("catalogs", ())
    cdef str name, version, catalog
    cdef ExternalResource found
    if value in CALLS or value in functions:
        return 0
    found = function_of(checker.document, checker.use, checker.document.origin, value)
    if found is not None:
        return need(checker, found, path)
    name, _, version = value.partition(":")
    version, _, catalog = version.partition("@")
    if name and is_semver(version) and catalog:
        if catalog in catalogs:
            # The shape of the catalog says what is wrong.
            return 0
        return checker.problem("unknown-reference", path, False,
                               f"use.catalogs has no {shown(catalog)}{checker.suggestion(catalog, catalogs)}")
    return checker.problem("unknown-reference", path, False,
                           f"{shown(value)} is no protocol ({listed(CALLS)}) and use.functions has no such function"
                           f"{checker.suggestion(value, [*CALLS, *functions])}")
