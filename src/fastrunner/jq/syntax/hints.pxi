"""Stage 4, expressions: what people who know other languages write, and how jq has it.

Rules: a hint is an addition to a problem that says what was found and what was expected; it is worked out only once
there is a problem.
"""

# A character no jq expression has outside of strings: how jq writes what it is for elsewhere.
cdef dict CHARACTER_HINTS = {
    "'": "strings are written in double quotes",
    "`": "strings are written in double quotes",
    "&": "jq writes 'and' for '&&'",
    "!": "jq negates behind a pipe: '.a | not'",
    "^": "a power is 'pow(a; b)'",
    "~": "regular expressions are matched by 'test(\"...\")'",
    "@": "a format's name follows '@', such as @json",
    "\\": "escapes stand only in strings",
}
# An operator with the one right before it: what was meant.
cdef dict OPERATOR_HINTS = {
    "||": "jq writes 'or' for '||'",
    "===": "jq compares with '=='",
    "!==": "jq compares with '!='",
    "=>": "jq has no '=>'; 'greater or equal' is '>='",
    "<>": "jq compares with '!='",
    "**": "a power is 'pow(a; b)'",
    "++": "jq has no '++'; add with '+= 1'",
    "()": "a function without arguments is called without parentheses",
    "[*": "all elements are '.[]'",
    "[?": "elements are chosen by 'map(select(...))'",
    "{{": "an expression stands between '${' and '}', and text is put together by \"...\\(.a)...\"",
}
# A word of another language before what was not expected: how jq has it.
cdef dict WORD_HINTS = {
    "let": "a variable is bound by 'value as $name | ...'",
    "var": "a variable is bound by 'value as $name | ...'",
    "const": "a variable is bound by 'value as $name | ...'",
    "for": "all elements are '.[]', as in '.items[] | ...'",
    "function": "a function is 'def name: ...;'",
    "return": "the value of an expression is its result",
}


cdef str character_hint(str text, Py_ssize_t at):
    """For a character the lexer does not know."""
    cdef str c = text[at]
    if c == "$":
        if text[at + 1 : at + 2] == ".":
            return "the input is '.', and a field of it '.name'"
        if text[at + 1 : at + 2] == "{":
            return "'${' and '}' stand around a whole expression only"
        return "a variable's name follows '$', such as $input"
    if c.isalpha():
        return f"names are of ASCII letters, digits and '_'; such a field is written .\"{c}...\""
    return CHARACTER_HINTS.get(c, "")


cdef str token_hint(Parser parser, str expected):
    """For the current token, which is not what was expected."""
    cdef str word
    cdef Py_ssize_t at = parser.lexer.start
    cdef str before = parser.lexer.text[max(0, at - 80) : at]
    cdef str tight = before.rstrip()
    if parser.lexer.kind == T_OPERATOR:
        word = parser.lexer.word
        if word == "?//":
            return "'?//' separates patterns; write '? //' for an alternative"
        for size in (2, 1):
            whole = before[max(0, len(before) - size) :] + word
            if whole in OPERATOR_HINTS:
                return OPERATOR_HINTS[whole]
        if word == ";":
            return "';' separates a function's arguments and ends a definition; expressions are joined by '|' or ','"
        if word == "(" and "operator" in expected:
            return "a function follows a pipe: '.a | length'"
        if word == ":" and "?" in before:
            return "a condition is written 'if a then b else c end'"
    elif tight.endswith("?") and "operator" in expected and parser.lexer.kind != T_END:
        return "a condition is written 'if a then b else c end'"
    elif parser.lexer.kind == T_KEYWORD and "operator" not in expected:
        return f"'{parser.lexer.word}' is a keyword; a field of that name is '.{parser.lexer.word}'"
    elif parser.lexer.kind == T_NAME and before[max(0, len(before) - 1) :].isdigit():
        return "numbers are decimal, without '_'"
    elif parser.lexer.kind == T_NAME and tight.endswith("."):
        return "there is no space behind the dot"
    elif parser.lexer.kind == T_NAME and "variable" in expected:
        return f"variables begin with '$': ${parser.lexer.word}"
    return WORD_HINTS.get(last_word(tight), "")


cdef str last_word(str text):
    cdef Py_ssize_t i = len(text)
    while i > 0 and is_name_part(text[i - 1]):
        i -= 1
    return text[i:]


cdef str place(str text, Py_ssize_t at, Py_ssize_t seen_from):
    """Where something is, as short as the place it is seen from allows."""
    cdef Py_ssize_t column = at - text.rfind("\n", 0, at)
    if text.count("\n", 0, at) == text.count("\n", 0, seen_from):
        return f"at column {column}"
    return f"at line {text.count(chr(10), 0, at) + 1}, column {column}"


cdef str function_hint(str name):
    """For a name that is no function."""
    other = {"True": "true", "False": "false", "None": "null", "nil": "null", "undefined": "null"}.get(name)
    if other is not None:
        return f"jq writes '{other}'"
    return WORD_HINTS.get(name, "")


cdef str call_hint(Node node, list arities):
    """For a call of no function, by what stands around it or is passed to it."""
    cdef str name = <str>node.key
    if node.level == 1:
        return f"a field of the input is '.{name}'"
    if node.level == 2:
        return f"a field with '-' in its name is written .\"...-{name}\""
    if arities == [0]:
        return f"its argument is its input: '... | {name}'"
    if arities and any([(<Node>kid).kind == N_COMMA for kid in node.kids]):
        return "arguments are separated by ';'"
    return "" if arities else function_hint(name)
