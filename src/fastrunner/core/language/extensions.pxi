"""Stage 2, compile: which tasks an extension extends, and what may be wrong with extensions.

Rules: `do` and `fork` are `composite`, every protocol and function is `call`. Tasks of extensions are extended by none,
nor are those of the functions that they call. What is looked at here may not have been checked.
"""

cdef list extensions_of(object root):
    """The well-formed extensions of a document, in the order in which they surround a task."""
    cdef object use = root.get("use") if type(root) is dict else None
    cdef object items = (<dict>use).get("extensions") if type(use) is dict else None
    cdef list extensions = []
    for item in items if type(items) is list else ():
        if type(item) is dict and len(<dict>item) == 1:
            extensions += [extension for extension in (<dict>item).values() if type(extension) is dict]
    return extensions


cdef str extension_word(dict task):
    """What `extend` calls the kind of a task; None for a task of no kind."""
    cdef str key
    for key in task:
        if key == "do" and "for" in task:
            continue
        if key == "do" or key == "fork":
            return "composite"
        if key in EXTENDED_WORDS and key != "all":
            return key
    return None


cdef bint extends(dict extension, str word) except -1:
    """Whether an extension is for tasks of a kind."""
    cdef object extended = extension.get("extend")
    return word is not None and (extended == word or extended == "all")


cdef int check_extended(Checker checker, Shape shape, str value, Path* path) except -1:
    cdef str hint
    if value in shape.words:
        return 0
    hint = checker.suggestion(value, shape.words)
    if value == "do" or value == "fork":
        hint = ": `do` and `fork` are extended as `composite`"
    elif value in CALLS or value == "function":
        hint = ": every call is extended as `call`; which ones is for `when` to say, as in $task.call == \"http\""
    elif value in RUN_KINDS:
        hint = ": whatever runs is extended as `run`; which ones is for `when` to say, as in $task.run.shell != null"
    return checker.problem("invalid-value", path, False,
                           f"{shown(value)} is no task kind to extend{hint}; allowed: {listed(shape.words)}")


cdef int check_extensions(Checker checker, Path* path) except -1:
    """With all copies the bounds hold; where there are functions as well, that is checked there."""
    return 0 if "functions" in checker.use else check_extents(checker, {}, path)


cdef int doubt_extension(Checker checker, dict extension, Path* path) except -1:
    """One without tasks."""
    if checker.document.is_stored or extension.get("before") or extension.get("after"):
        return 0
    return doubt(checker, "idle-extension", path,
                 "this extension has no tasks, so it does nothing: give it `before` or `after`")
