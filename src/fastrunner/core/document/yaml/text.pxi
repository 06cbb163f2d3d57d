"""Stage 2, compile: the text of a YAML document, and how it is walked over.

Rules: YAML 1.2.2. The text is read from an array of code points with a zero behind it, so that looking one character
ahead needs no bounds: a zero at `size` is the end, one before it a character that no document may have. LF, CR and
CRLF end a line and nothing else does: U+0085, U+2028 and U+2029 are ordinary characters. Only spaces indent. White
space is passed at most twice, so that reading takes linear time whatever the text is.
"""

from libc.stdlib cimport malloc
from libc.string cimport memcpy

cdef extern from "Python.h":
    Py_UCS4* PyUnicode_AsUCS4Copy(object text) except NULL
    object PyUnicode_FromKindAndData(int kind, const void* data, Py_ssize_t size)
    enum: PyUnicode_4BYTE_KIND

cdef enum:
    YAML_BLANK = 1
    YAML_BREAK = 2
    YAML_FLOW_INDICATOR = 4
    YAML_COLON = 8
    YAML_HASH = 16
    YAML_UNPRINTABLE = 32
    YAML_TAG = 64
    YAML_INDICATOR = 128
    # What a plain scalar has to look at more closely.
    YAML_NOT_PLAIN = YAML_BLANK | YAML_BREAK | YAML_FLOW_INDICATOR | YAML_COLON | YAML_HASH | YAML_UNPRINTABLE

cdef unsigned char[128] YAML_CLASSES


cdef int classify_yaml(str characters, int kind) except -1:
    cdef Py_UCS4 character
    for character in characters:
        YAML_CLASSES[character] |= kind
    return 0


classify_yaml("".join([chr(code) for code in range(32) if code not in (9, 10, 13)]) + "\x7f", YAML_UNPRINTABLE)
classify_yaml(" \t", YAML_BLANK)
classify_yaml("\n\r", YAML_BREAK)
classify_yaml(",[]{}", YAML_FLOW_INDICATOR)
classify_yaml(":", YAML_COLON)
classify_yaml("#", YAML_HASH)
classify_yaml("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-#;/?:@&=+$_.~*'()%", YAML_TAG)
classify_yaml("-?:,[]{}#&*!|>'\"%@`", YAML_INDICATOR)


cdef inline bint is_yaml_blank(Py_UCS4 character) noexcept:
    return character == u" " or character == u"\t"


cdef inline bint is_yaml_break(Py_UCS4 character) noexcept:
    return character == u"\n" or character == u"\r"


cdef inline bint is_yaml_gap(Py_UCS4 character) noexcept:
    """White space, or the end."""
    return character == 0 or is_yaml_blank(character) or is_yaml_break(character)


cdef inline bint is_flow_indicator(Py_UCS4 character) noexcept:
    return character < 128 and YAML_CLASSES[character] & YAML_FLOW_INDICATOR


cdef inline bint is_unprintable(Py_UCS4 character) noexcept:
    if character < 128:
        return YAML_CLASSES[character] & YAML_UNPRINTABLE
    return (character < 0xA0 and character != 0x85) or character == 0xFEFF or character == 0xFFFE or character == 0xFFFF


cdef inline bint at_yaml_end(Yaml yaml) noexcept:
    return yaml.at >= yaml.size


cdef bint at_yaml_marker(Yaml yaml) noexcept:
    """Does `---` or `...` stand here, at the beginning of a line?"""
    cdef Py_UCS4* here = yaml.buffer + yaml.at
    if yaml.at != yaml.line_start or (here[0] != u"-" and here[0] != u"."):
        return False
    return here[1] == here[0] and here[2] == here[0] and is_yaml_gap(here[3])


cdef inline void pass_blanks(Yaml yaml) noexcept:
    while is_yaml_blank(yaml.buffer[yaml.at]):
        yaml.at += 1


cdef inline void pass_break(Yaml yaml) noexcept:
    """Over the line break that stands here."""
    if yaml.buffer[yaml.at] == u"\r" and yaml.buffer[yaml.at + 1] == u"\n":
        yaml.at += 1
    yaml.at += 1
    yaml.line += 1
    yaml.line_start = yaml.at


cdef void pass_breaks(Yaml yaml) noexcept:
    """Over the line break that stands here, the empty lines after it, and the white space before the next text."""
    yaml.breaks = 0
    while True:
        pass_break(yaml)
        yaml.breaks += 1
        while yaml.buffer[yaml.at] == u" ":
            yaml.at += 1
        yaml.indent = yaml.at - yaml.line_start
        pass_blanks(yaml)
        if not is_yaml_break(yaml.buffer[yaml.at]):
            return


cdef int pass_line(Yaml yaml) except -1:
    """To the end of the line, whose text is a comment or a literal."""
    cdef Py_UCS4 character
    while True:
        character = yaml.buffer[yaml.at]
        if is_yaml_break(character) or (character == 0 and at_yaml_end(yaml)):
            return 0
        if is_unprintable(character):
            raise unprintable_error(yaml)
        yaml.at += 1


cdef int pass_space(Yaml yaml) except -1:
    """Over white space and comments; says in `fresh`, `tabbed` and `indent` how the text behind them stands."""
    cdef Py_UCS4 character
    yaml.fresh = False
    yaml.tabbed = False
    while True:
        if yaml.at == yaml.line_start:
            yaml.fresh = True
            yaml.tabbed = False
            while yaml.buffer[yaml.at] == u" ":
                yaml.at += 1
            yaml.indent = yaml.at - yaml.line_start
        character = yaml.buffer[yaml.at]
        if is_yaml_break(character):
            pass_break(yaml)
        elif is_yaml_blank(character):
            if character == u"\t":
                yaml.tabbed = True
            yaml.at += 1
        elif character == u"#" and (yaml.at == yaml.line_start or is_yaml_blank(yaml.buffer[yaml.at - 1])):
            pass_line(yaml)
        else:
            return 0


cdef int begin_out(Yaml yaml) except -1:
    """Room for a scalar that has to be put together."""
    if yaml.out is NULL:
        yaml.out = <Py_UCS4*>malloc((yaml.size + 8) * sizeof(Py_UCS4))
        if yaml.out is NULL:
            raise MemoryError
    yaml.out_size = 0
    return 0


cdef inline void put_character(Yaml yaml, Py_UCS4 character) noexcept:
    yaml.out[yaml.out_size] = character
    yaml.out_size += 1


cdef inline void put_text(Yaml yaml, Py_ssize_t start, Py_ssize_t end) noexcept:
    memcpy(yaml.out + yaml.out_size, yaml.buffer + start, (end - start) * sizeof(Py_UCS4))
    yaml.out_size += end - start


cdef inline void put_breaks(Yaml yaml, Py_ssize_t count) noexcept:
    cdef Py_ssize_t i
    for i in range(count):
        put_character(yaml, u"\n")


cdef inline void put_fold(Yaml yaml, Py_ssize_t breaks) noexcept:
    """Line breaks as flow scalars fold them: one becomes a space, of several the first is dropped."""
    if breaks == 1:
        put_character(yaml, u" ")
    else:
        put_breaks(yaml, breaks - 1)


cdef inline str out_text(Yaml yaml):
    return PyUnicode_FromKindAndData(PyUnicode_4BYTE_KIND, yaml.out, yaml.out_size)


cdef object yaml_error(Yaml yaml, str message):
    """InvalidWorkflow for what stands here."""
    return single_problem("syntax-error", yaml.line, yaml.at - yaml.line_start + 1, "YAML: " + message)


cdef object yaml_expected(Yaml yaml, str what, str remedy):
    cdef str found = "the text ends" if at_yaml_end(yaml) else f"found {shown(chr(yaml.buffer[yaml.at]))}"
    if is_yaml_break(yaml.buffer[yaml.at]):
        found = "the line ends"
    return yaml_error(yaml, f"expected {what}, {found}; {remedy}")


cdef object unprintable_error(Yaml yaml):
    return yaml_error(yaml, f"the character {shown(chr(yaml.buffer[yaml.at]))} is not allowed here; remove it or write "
                            "it as an escape in double quotes")


cdef object tab_error(Yaml yaml):
    """For text that white space with a tab holds apart from the indentation; the tab is what is wrong."""
    while yaml.at > yaml.line_start and is_yaml_blank(yaml.buffer[yaml.at - 1]):
        yaml.at -= 1
    while yaml.buffer[yaml.at] == u" ":
        yaml.at += 1
    return yaml_error(yaml, "found a tab where spaces are expected; indent with spaces, never with tabs")
