"""Stage 2, compile: reads YAML 1.2.2 into JSON's data, one document, in steps.

Rules: each step reads one value, one indicator, or what stands between two lines; a pause may come after any.
Directives are read as YAML 1.2.2 says; a second document is a problem.
"""

cdef extern from "Python.h":
    object PyUnicode_Substring(object text, Py_ssize_t start, Py_ssize_t end)

# A unit of a step's budget: about half a microsecond.
cdef enum:
    YAML_STEPS_PER_UNIT = 8
    YAML_CHARACTERS_PER_STEP = 32


cdef bint step_yaml(Yaml yaml, Py_ssize_t budget) except -1:
    """Reads on for about `budget` units of eight steps or 256 characters; says whether the document is read."""
    cdef Py_ssize_t before
    budget *= YAML_STEPS_PER_UNIT
    while yaml.state != YAML_DONE:
        if budget <= 0:
            return False
        before = yaml.at
        if yaml.state == YAML_NODE:
            step_node(yaml)
        elif yaml.state == YAML_NEXT:
            step_next(yaml)
        elif yaml.state == YAML_IN_FLOW:
            step_flow(yaml)
        elif yaml.state == YAML_BEGIN:
            begin_document(yaml)
        else:
            end_document(yaml)
        budget -= 1
        if yaml.at > before:
            budget -= (yaml.at - before) // YAML_CHARACTERS_PER_STEP
    return True


cdef int begin_document(Yaml yaml) except -1:
    """Over directives and `---` to the beginning of the document's value."""
    cdef set directives = set()
    while True:
        pass_space(yaml)
        if at_yaml_end(yaml) and not directives:
            raise single_problem("empty-document", 1, 1, "the document is empty; expected a workflow definition")
        if yaml.buffer[yaml.at] == u"%" and yaml.at == yaml.line_start:
            read_directive(yaml, directives)
        elif at_yaml_marker(yaml) and yaml.buffer[yaml.at] == u"-":
            yaml.at += 3
            return await_node(yaml, -1, False, False)
        elif directives:
            raise yaml_expected(yaml, "'---' after directives",
                                "quote a value that starts with '%', or add a '---' line")
        elif at_yaml_marker(yaml):
            pass_end_marker(yaml)
        else:
            yaml.at = yaml.line_start
            return await_node(yaml, -1, True, False)


cdef int read_directive(Yaml yaml, set directives) except -1:
    """%YAML and %TAG; others are for other readers."""
    cdef Py_ssize_t start = yaml.at
    cdef list words
    cdef str name
    pass_line(yaml)
    words = PyUnicode_Substring(yaml.text, start + 1, yaml.at).replace("\t", " ").split(" #", 1)[0].split(" ")
    name = words[0]
    words = [word for word in words[1:] if word]
    yaml.at = start
    if name == "YAML":
        if len(words) != 1 or not is_readable_version(words[0]) or "%YAML" in directives:
            raise yaml_error(yaml, "expected one '%YAML 1.2'; correct the line or remove it")
        directives.add("%YAML")
    elif name == "TAG":
        if len(words) != 2 or not is_tag_handle(words[0]) or words[0] in directives:
            raise yaml_error(yaml, "expected '%TAG !handle! prefix', once for each handle; remove the line")
        directives.add(words[0])
        yaml.handles[words[0]] = words[1]
    else:
        directives.add("%")
    pass_line(yaml)
    return 0


cdef bint is_readable_version(str text):
    """1.x: later versions of YAML 1 are read as 1.2, as it asks for."""
    return text.startswith("1.") and text[2:].isascii() and text[2:].isdecimal()


cdef bint is_tag_handle(str text):
    cdef str name = text[1:len(text) - 1].replace("-", "")
    if text == "!" or text == "!!":
        return True
    return len(text) > 2 and text[0] == u"!" and text[len(text) - 1] == u"!" and name.isascii() and name.isalnum()


cdef int pass_end_marker(Yaml yaml) except -1:
    """Over `...` and what may follow it on its line."""
    yaml.at += 3
    pass_blanks(yaml)
    if yaml.buffer[yaml.at] == u"#" and is_yaml_blank(yaml.buffer[yaml.at - 1]):
        pass_line(yaml)
    if not at_yaml_end(yaml) and not is_yaml_break(yaml.buffer[yaml.at]):
        raise yaml_expected(yaml, "the end of the line after '...'", "remove what follows it")
    return 0


cdef int end_document(Yaml yaml) except -1:
    """Over what may stand behind the document's value: at the end, or at a marker."""
    while not at_yaml_end(yaml):
        if not at_yaml_marker(yaml) or yaml.buffer[yaml.at] == u"-":
            raise single_problem("multiple-documents", yaml.line, yaml.at - yaml.line_start + 1,
                                 "a second YAML document starts here; send one workflow at a time")
        pass_end_marker(yaml)
        pass_space(yaml)
    yaml.state = YAML_DONE
    return 0
