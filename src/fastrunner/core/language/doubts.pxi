"""Stage 2, compile: warnings: what is allowed, runs, and hardly does what its author meant.

Rules: a warning never refuses anything, and a false alarm is worse than a miss: where another reading is likely,
nothing is said. Text pays a look at its first character and a search for a brace; an expression pays nothing but what
its compiling told (`Program.truth`) and, within loops and handlers, a search for their names. Documents that were
accepted before are not warned about. Messages show paths and names an author wrote, never other values.
"""

import re as _re

from fastrunner._jq cimport (
    Program,
    TRUTH_ARRAY,
    TRUTH_DEFAULT,
    TRUTH_NUMBER,
    TRUTH_OBJECT,
    TRUTH_OPEN,
    TRUTH_TEXT,
    TRUTH_UPDATE,
    compile_within,
    input_members,
)
from fastrunner._jq import ExpressionProblem as _ExpressionProblem

# What is compiled, or looked for in the document, only to see whether a warning is right.
cdef enum:
    GUESSES_MAX = 100
    GUESS_SIZE_MAX = 200
    # In larger documents nobody looks for who sets a member.
    SEARCHED_SIZE_MAX = 65_536

# `${ .a }` and `${name}`; not `${HOME}`, which is a shell's.
cdef object PART_EXPRESSION = _re.compile(r"\$\{\s*(?![A-Z_][A-Z0-9_]*\})[\w.$\"'(\[{]")
cdef object PART_TEMPLATE = _re.compile(r"\{\{-?\s*[\w.$\"'(][^{}]*\}\}")
cdef object BARE_PATH = _re.compile(
    r"(?:\.[A-Za-z_]\w*|\$([A-Za-z_]\w*)|\$\.[A-Za-z_]\w*)(?:\.[A-Za-z_]\w*|\.?\[(?:\d*|\"[^\"\\]*\")\]|\?)*"
)
cdef object OPERATOR = _re.compile(r"\s*(?:\||//|[=!]=|[<>]=?|[-+*/%]\s|and\b|or\b)\s*\S")
# Where text that begins with a dot is no path through data.
cdef object NAMES_FILES = _re.compile(
    r"ext|suffix|prefix|file|path|dir|domain|tld|host|class|selector|css|glob|pattern|ignore|separator|delimiter|"
    r"command|regex|token|password|secret", _re.IGNORECASE)
cdef frozenset FILE_ENDINGS = frozenset((
    "NET", "avi", "bak", "bashrc", "bin", "bz2", "cfg", "com", "conf", "css", "csv", "dev", "dll", "doc",
    "dockerignore", "docx", "edu", "env", "exe", "gif", "git", "gitignore", "gov", "gz", "htm", "html", "ini", "io",
    "java", "jpeg", "jpg", "js", "json", "jsonl", "local", "log", "md", "mp3", "mp4", "net", "npmrc", "org",
    "parquet", "pdf", "php", "png", "profile", "py", "rb", "rs", "rst", "sh", "sql", "ssh", "svg", "tar", "tgz",
    "toml", "ts", "tsv", "txt", "wav", "webp", "xls", "xlsx", "xml", "xz", "yaml", "yml", "zip", "zst",
))
cdef frozenset ERROR_MEMBERS = frozenset(("type", "status", "title", "detail", "instance"))
# Tasks whose output the document itself tells.
cdef frozenset PLAIN_KINDS = frozenset(("set", "wait", "switch", "raise"))
cdef dict TRUTH_MESSAGES = {
    TRUTH_UPDATE: "an update such as `.a = 1` gives the whole input, so this condition is the same whatever the data "
                  "is: to compare, write `==`",
    TRUTH_DEFAULT: "`//` gives its right side for `null` and for `false`, so this condition is the same whatever the "
                   "data is: leave the default out, or compare, as in `.a != false`",
    TRUTH_NUMBER: "a number is true, 0 as well, so this condition is the same whatever the data is: compare it, as in "
                  "`(.a | length) > 0`",
    TRUTH_TEXT: "text is true, an empty one as well, so this condition is the same whatever the data is: compare it, "
                "as in `.a == \"b\"`",
    TRUTH_ARRAY: "an array is true, an empty one as well, so this condition is the same whatever the data is: ask for "
                 "its length, as in `(.a | length) > 0`, or use `any`",
    TRUTH_OBJECT: "an object is true, so this condition is the same whatever the data is: compare, as in `.a == 1`",
}


cdef int doubt(Checker checker, str code, Path* path, str message) except -1:
    """Notes a warning at a value, once: a definition may be checked several times."""
    cdef str pointer
    if len(checker.doubts) >= PROBLEMS_MAX:
        return 0
    checker.left -= COST_PROBLEM
    pointer = pointer_of(path)
    if (code, pointer) not in checker.doubts:
        checker.doubts[code, pointer] = message
    return 0


cdef list warnings_of(Checker checker):
    """The warnings of a document that is checked, in document order. Reads the text once more for the positions."""
    cdef list warnings = []
    for (code, pointer), message in checker.doubts.items():
        line, column = checker.document.position(pointer, False)
        warnings.append(Problem(code, pointer, line, column, message, "warning"))
    warnings.sort(key=problem_key)
    return warnings


# --- text ---

cdef inline bint is_remarkable(str value) except -1:
    """Whether text has to be looked at more closely."""
    return len(value) > 1 and (value[0] == u"." or value[0] == u"$" or u"{" in value)


cdef int doubt_text(Checker checker, str value, Path* path) except -1:
    """Text in a position where an expression may stand."""
    if checker.is_loose or checker.document.is_stored or checker.position is AT_RUN:
        return 0
    if len(checker.doubts) >= PROBLEMS_MAX or checker.position.form == FORM_PLAIN:
        return 0
    if "${" in value and PART_EXPRESSION.search(value) is not None:
        return doubt(checker, "text-around-expression", path, TEXT_AROUND)
    if "{{" in value and PART_TEMPLATE.search(value) is not None:
        return doubt(checker, "foreign-template", path,
                     "`{{ }}` is text here: an expression is all of a string, as in ${ .name }, and text is put "
                     "together in it: ${ \"Hello, \\(.name)\" }")
    if value[0] == u"." or value[0] == u"$":
        return doubt_path(checker, value, path)
    return 0


cdef str TEXT_AROUND = (
    "the `${ }` in this text is text as well: an expression is all of a string, and text is put together in it: "
    "${ \"Hello, \\(.name)\" }"
)


cdef int doubt_path(Checker checker, str value, Path* path) except -1:
    """Text that would be an expression if it stood in `${ }`."""
    cdef object found = BARE_PATH.match(value)
    cdef str name, rest
    if found is None or found.end() < 2:
        return 0
    name = found[1]
    rest = value[found.end():]
    if name is not None and name not in RUNNER_ARGUMENTS and not is_bound(checker, name):
        return 0
    if rest and (OPERATOR.match(rest) is None or not is_jq(checker, value)):
        return 0
    if names_file(value, rest, path):
        return 0
    if rest or len(value) > NAME_SHOWN_MAX or "[" in value or value.startswith("$."):
        remedy = "write it in ${ }, as in ${ .name }"
    else:
        remedy = f"write ${{ {value} }}"
    return doubt(checker, "text-like-expression", path,
                 f"this is text, and looks like an expression: a value is one only in ${{ }}; {remedy}")


cdef bint names_file(str value, str rest, Path* path) except -1:
    """Whether text that begins with a dot may be what files, domains or classes are called."""
    while path is not NULL and path.key is NULL:
        path = path.parent
    if path is not NULL and path.index != PATH_POINTER and NAMES_FILES.search(<str>path.key) is not None:
        return True
    return not rest and value[0] == u"." and value.rpartition(".")[2] in FILE_ENDINGS


cdef bint is_bound(Checker checker, str name) except -1:
    return checker.bindings is not None and name in names_in(checker.bindings.at(checker.position))


cdef bint is_jq(Checker checker, str text) except -1:
    """Whether a text compiles. What finds out is counted apart, so that no document is refused for its text."""
    cdef long long steps = STEPS_EXPRESSION * GUESS_SIZE_MAX
    if checker.guesses >= GUESSES_MAX or len(text) > GUESS_SIZE_MAX:
        return False
    checker.guesses += 1
    checker.left -= COST_EXPRESSION + COST_CHARACTER * len(text)
    try:
        compile_within(text, &steps, False)
    except _ExpressionProblem:
        return False
    return True


# --- expressions ---

cdef int doubt_expression(Checker checker, Program program, tuple scopes, Path* path) except -1:
    """An expression that compiles; `scopes` are the variables around it."""
    if checker.document.is_stored:
        return 0
    if program.truth != TRUTH_OPEN and checker.position.is_condition:
        doubt(checker, "constant-condition", path, TRUTH_MESSAGES[program.truth])
    elif program.is_doubtful:
        doubt(checker, "constant-condition", path,
              "an update such as `.a = 1` stands here as the condition of `if`, `select`, `any` or `all`, where it is "
              "always true: to compare, write `==`")
    if program.arguments and "secrets" in program.arguments and is_kept(checker.position):
        doubt(checker, "secret-as-data", path,
              "what an expression makes of `$secrets` here is data: stored, sent in events and shown; read the secret "
              "where it is used, in a call's `authentication` or arguments, which are kept nowhere")
    return doubt_members(checker, program, scopes, path) if scopes else 0


cdef bint is_kept(Position position) noexcept:
    """Whether the value of a position becomes data of the workflow, and not only a decision or a call's argument."""
    return position.form == FORM_SLOT or position is AT_RAISE_ERROR or position is AT_EMIT


cdef int doubt_members(Checker checker, Program program, tuple scopes, Path* path) except -1:
    """`.item` where `$item` is meant: a member of the input that nothing in the document gives it."""
    cdef set members = None
    cdef str name
    for name in names_in(scopes):
        if "." + name not in program.text or name in program.arguments:
            continue
        if checker.guesses >= GUESSES_MAX or len(checker.document.text) > SEARCHED_SIZE_MAX:
            return 0
        checker.guesses += 1
        checker.left -= COST_PROBLEM + COST_CHARACTER * len(program.text)
        if members is None:
            members = input_members(program)
        if name in members and is_no_member(checker, name, path):
            doubt(checker, "variable-as-member", path,
                  f"`.{name}` is a member of {checker.position.dot}, and nothing here gives it one; the variable that "
                  f"is bound around this is `${name}`: write that")
    return 0


cdef bint is_no_member(Checker checker, str name, Path* path) except -1:
    """Whether the document tells that `.` has no such member here, as far as it tells."""
    cdef str dot = checker.position.dot
    if dot == DOT_CAUGHT:
        return name not in ERROR_MEMBERS
    if dot != DOT_TASK_INPUT and dot != DOT_RAW_INPUT and dot != DOT_ITERATION:
        return False
    return is_input_told(checker.document.root, name, pointer_of(path)[1:].split("/")) and not is_written(checker, name)


cdef bint is_written(Checker checker, str name) except -1:
    """Whether the document has a key of that name, or an expression that sets one. The `error` of `raise` is none."""
    cdef str text = checker.document.text
    cdef object found
    for found in _re.finditer(rf"(?<![\w$]){_re.escape(name)}[\"']?\s*(?::|[-|+*/%]?=(?!=))", text):
        if not text[max(0, found.start() - 200):found.start()].rstrip(" \r\n{\"'").endswith("raise:"):
            return True
    return False


cdef bint is_input_told(object value, str name, list segments) except -1:
    """Whether no call or such gives data between what binds the name and the task at the pointer's segments."""
    cdef bint is_within = False, is_told = True
    cdef str segment, before = ""
    for segment in segments:
        if type(value) is list:
            is_told = is_told and tell_outputs(<list>value, int(segment))
            value = (<list>value)[int(segment)]
        else:
            segment = segment.replace("~1", "/").replace("~0", "~")
            if type(value) is not dict or segment not in <dict>value:
                return False
            if segment in ("do", "while") and binds_name(<dict>value, name, before == "catch"):
                is_told = is_told or before != "catch"
                is_within = True
            if type((<dict>value).get("input")) is dict and "from" in (<dict>value)["input"]:
                is_told = False
            value = (<dict>value)[segment]
        before = segment
    return is_within and is_told


cdef bint binds_name(dict holder, str name, bint is_catch) except -1:
    """Whether what stands beside a `do` binds the name for it."""
    cdef object loop = holder.get("for")
    if is_catch:
        return name == bound_name(holder, "as", "error")
    if type(loop) is not dict:
        return False
    return name == bound_name(loop, "each", "item") or name == bound_name(loop, "at", "index")


cdef bint tell_outputs(list tasks, Py_ssize_t count) except -1:
    """Whether the first tasks of a list give what the document says, or their input."""
    cdef Py_ssize_t at
    for at in range(count):
        for task in tasks[at].values() if type(tasks[at]) is dict else ():
            if type(task) is not dict or PLAIN_KINDS.isdisjoint(task) or "output" in task:
                return False
            if type(task.get("set")) is str:
                return False
    return True


# --- what was meant otherwise once ---

cdef int doubt_arguments(Checker checker, Path* path) except -1:
    """Arguments of a process as a map, which they were up to DSL 1.0.2."""
    if checker.document.is_stored:
        return 0
    return doubt(checker, "outdated-arguments", path,
                 "arguments are a list of strings since DSL 1.0.3; of this map each member becomes one argument, "
                 "NAME=value, in the order written: write the list, and what is no argument into `environment`")
