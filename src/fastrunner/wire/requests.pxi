"""Stage 1, service: requests read without building a protobuf message: what is plainly fine, in one pass.

Theory of operation: nearly every request to execute has fields in one short form: a tag of one byte, and a text, a
message or a number behind it. Those are read here, straight into what the engine takes. Whatever else protobuf allows
(groups, unknown fields, a text that comes twice, `Struct`), whatever is broken, and whatever is beyond a bound is left
to the plain decoder: it reads the request anew, takes it or finds the words to refuse it.

Rule: what is read here is what the plain decoder reads, to the byte; where that is not obvious, it is not read here.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
from libc.string cimport memcmp, memcpy

cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object text)

cdef Py_ssize_t EXECUTION_ID_SIZE_BYTES_MAX = _limits.EXECUTION_ID_SIZE_BYTES_MAX
cdef Py_ssize_t DOCUMENT_SIZE_BYTES_MAX = _limits.DOCUMENT_SIZE_BYTES_MAX
cdef Py_ssize_t ENV_VARS_SIZE_BYTES_MAX = _limits.ENV_VARS_SIZE_BYTES_MAX
cdef Py_ssize_t LABELS_COUNT_MAX = _limits.LABELS_COUNT_MAX
cdef Py_ssize_t LABEL_NAME_SIZE_BYTES_MAX = _limits.LABEL_NAME_SIZE_BYTES_MAX
cdef Py_ssize_t LABEL_VALUE_SIZE_BYTES_MAX = _limits.LABEL_VALUE_SIZE_BYTES_MAX
cdef Py_ssize_t METADATA_SIZE_BYTES_MAX = _limits.METADATA_SIZE_BYTES_MAX
cdef Py_ssize_t INPUT_SIZE_BYTES_MAX = _limits.INPUT_SIZE_BYTES_MAX
cdef Py_ssize_t INPUT_DEPTH_MAX = _limits.INPUT_DEPTH_MAX


# A place in a message: what has not been read yet.
ctypedef struct Cursor:
    const unsigned char* at
    const unsigned char* end


# One field: its tag, and where its text or message lies, or its number.
ctypedef struct Field:
    unsigned char tag
    Cursor content
    uint64_t number


cdef enum:
    # Tags: field number << 3 | wire type; 2 is what has a length, 0 a number.
    EXECUTION_ID = 1 << 3 | 2
    DOCUMENT = 2 << 3 | 2
    ENV_VAR = 3 << 3 | 2
    METADATA = 4 << 3 | 2
    CONFIG = 6 << 3 | 2
    INPUT_JSON = 8 << 3 | 2
    LABEL = 10 << 3 | 2
    KEY = 1 << 3 | 2
    VALUE = 2 << 3 | 2
    TIMEOUT_S_MAX = 1 << 3
    DEBUG = 2 << 3
    CALLBACKS_DISABLED = 3 << 3
    METADATA_FIELDS = 4
    # Bytes of a number that are read here: of a length, and of any other, which may have one more.
    LENGTH_BYTES_MAX = 4
    NUMBER_BYTES_MAX = 9


cdef inline bint read_number(Cursor* cursor, int bytes_max, uint64_t* number) noexcept nogil:
    """A varint of at most so many bytes; False if it is none."""
    cdef unsigned char byte
    cdef int place
    number[0] = 0
    for place in range(bytes_max):
        if cursor.at == cursor.end:
            return False
        byte = cursor.at[0]
        cursor.at += 1
        number[0] |= <uint64_t>(byte & 0x7f) << 7 * place
        if byte < 0x80:
            return True
    return False


cdef inline bint read_field(Cursor* cursor, Field* field) noexcept nogil:
    """The next field, of which there is at least a byte; False if it is not in the short form."""
    cdef uint64_t size_bytes
    field.tag = cursor.at[0]
    field.number = 0
    cursor.at += 1
    field.content = cursor[0]
    # A tag of two bytes, or field number 0, which protobuf refuses.
    if field.tag >= 0x80 or field.tag < 8:
        return False
    if field.tag & 7 == 0:
        return read_number(cursor, NUMBER_BYTES_MAX, &field.number)
    if field.tag & 7 != 2:
        return False
    if not read_number(cursor, LENGTH_BYTES_MAX, &size_bytes) or size_bytes > <uint64_t>(cursor.end - cursor.at):
        return False
    field.content.at = cursor.at
    cursor.at += size_bytes
    field.content.end = cursor.at
    return True


cdef inline Py_ssize_t size_of(const Cursor* content) noexcept nogil:
    return content.end - content.at


cdef inline str text_of(const Cursor* content):
    """None for what is no UTF-8."""
    try:
        return PyUnicode_DecodeUTF8(<const char*>content.at, size_of(content), NULL)
    except UnicodeDecodeError:
        return None


cdef inline bint is_plain_id(const Cursor* content) noexcept nogil:
    """Whether an id is ASCII without control characters, and has a fine length."""
    cdef const unsigned char* at = content.at
    if not 0 < size_of(content) <= EXECUTION_ID_SIZE_BYTES_MAX:
        return False
    while at < content.end:
        if not 32 <= at[0] < 127:
            return False
        at += 1
    return True


cdef inline bint is_plain_document(const Cursor* content) noexcept nogil:
    """Whether a document has a fine length and does not begin with what may be a blank."""
    return 0 < size_of(content) <= DOCUMENT_SIZE_BYTES_MAX and 32 < content.at[0] < 127


cdef inline bint is_plain_input(const Cursor* content) noexcept nogil:
    """Whether an input has a fine length and too few brackets to nest too deep."""
    cdef const unsigned char* at = content.at
    cdef Py_ssize_t brackets = 0
    if not 0 < size_of(content) <= INPUT_SIZE_BYTES_MAX:
        return False
    while at < content.end:
        brackets += at[0] == b"[" or at[0] == b"{"
        at += 1
    return brackets <= INPUT_DEPTH_MAX


cdef str document_last = ""


cdef str document_of(const Cursor* content):
    """As `text_of`. The same object for the same document as last time: whoever looks up its plan has hashed it
    already, and compares it with itself."""
    global document_last
    cdef Py_ssize_t size_bytes
    cdef const char* last
    if PyUnicode_IS_COMPACT_ASCII(document_last):
        last = PyUnicode_AsUTF8AndSize(document_last, &size_bytes)
        if size_bytes == size_of(content) and memcmp(last, content.at, size_bytes) == 0:
            return document_last
    text = text_of(content)
    if text is not None:
        document_last = text
    return text


cdef bint is_plain_metadata(Cursor content):
    """Whether a WorkflowMetadata is written as it will be stored: each text once, in order, none of them empty."""
    cdef Field field
    cdef int number = 0
    cdef const unsigned char* head
    if size_of(&content) > METADATA_SIZE_BYTES_MAX:
        return False
    while content.at < content.end:
        head = content.at
        if not read_field(&content, &field) or field.tag & 7 != 2:
            return False
        if not number < field.tag >> 3 <= METADATA_FIELDS or text_of(&field.content) is None:
            return False
        number = field.tag >> 3
        # No longer than it must be: a tag, and a byte for each 7 bits of the length.
        head += 2
        size_bytes = size_of(&field.content)
        while size_bytes >> 7:
            size_bytes >>= 7
            head += 1
        if head != field.content.at or not size_of(&field.content):
            return False
    return True


cdef bint read_env_var(Cursor content, dict env_vars):
    """An entry of the map; False if it is not in the short form, or has no name."""
    cdef Field field
    cdef str name = ""
    cdef str value = ""
    while content.at < content.end:
        if not read_field(&content, &field):
            return False
        if field.tag == KEY:
            name = text_of(&field.content)
        elif field.tag == VALUE:
            value = text_of(&field.content)
        else:
            return False
        if name is None or value is None:
            return False
    env_vars[name] = value
    return bool(name)


cdef bint read_label(Cursor content, dict labels):
    """An entry of the map; False if it is not in the short form, or not plainly fine."""
    cdef dict entry = {}
    cdef str name, value
    if not read_env_var(content, entry):
        return False
    for name, value in entry.items():
        if not (name.isascii() and name.isprintable() and value.isascii() and value.isprintable()) or "=" in name:
            return False
        if len(name) > LABEL_NAME_SIZE_BYTES_MAX or len(value) > LABEL_VALUE_SIZE_BYTES_MAX:
            return False
        labels[name] = value
    return True


cdef bint read_config(Cursor content, int64_t* timeout_s_max, bint* debug, bint* silent) noexcept:
    """A WorkflowExecutionConfig, over what an earlier one said; False if it is not in the short form."""
    cdef Field field
    while content.at < content.end:
        if not read_field(&content, &field):
            return False
        if field.tag == TIMEOUT_S_MAX and field.number < 1 << 31:
            timeout_s_max[0] = field.number
        elif field.tag == DEBUG:
            debug[0] = field.number != 0
        elif field.tag == CALLBACKS_DISABLED:
            silent[0] = field.number != 0
        else:
            return False
    return True


def read_execution(bytes payload not None):
    cdef Cursor cursor, document, input_json, execution_id, metadata
    cdef Field field
    cdef int seen = 0
    cdef dict env_vars = {}
    cdef Py_ssize_t env_vars_size_bytes = 0
    cdef int64_t timeout_s_max = 0
    cdef bint debug = False
    cdef bint silent = False
    cdef dict labels = {}
    cdef Py_ssize_t labels_count = 0
    cursor.at = <const unsigned char*>PyBytes_AS_STRING(payload)
    cursor.end = cursor.at + PyBytes_GET_SIZE(payload)
    execution_id = document = input_json = metadata = Cursor(cursor.at, cursor.at)
    while cursor.at < cursor.end:
        if not read_field(&cursor, &field):
            return None
        if field.tag == ENV_VAR:
            env_vars_size_bytes += size_of(&field.content)
            if env_vars_size_bytes > ENV_VARS_SIZE_BYTES_MAX or not read_env_var(field.content, env_vars):
                return None
            continue
        if field.tag == CONFIG:
            if not read_config(field.content, &timeout_s_max, &debug, &silent):
                return None
            continue
        if field.tag == LABEL:
            labels_count += 1
            if labels_count > LABELS_COUNT_MAX or not read_label(field.content, labels):
                return None
            continue
        # The others come once: where one comes again, each has to be a text although the last one wins.
        if seen >> (field.tag >> 3) & 1:
            return None
        seen |= 1 << (field.tag >> 3)
        if field.tag == EXECUTION_ID:
            execution_id = field.content
        elif field.tag == DOCUMENT:
            document = field.content
        elif field.tag == INPUT_JSON:
            input_json = field.content
        elif field.tag == METADATA and is_plain_metadata(field.content):
            metadata = field.content
        else:
            return None
    if not is_plain_id(&execution_id) or not is_plain_document(&document):
        return None
    document_text = document_of(&document)
    if document_text is None or (input_json.at != input_json.end and not is_plain_input(&input_json)):
        return None
    return (
        text_of(&execution_id),
        document_text,
        bytes_of(&input_json),
        env_vars,
        bytes_of(&metadata),
        timeout_s_max,
        debug,
        labels,
        silent,
    )


cdef inline bytes bytes_of(const Cursor* content):
    return PyBytes_FromStringAndSize(<const char*>content.at, size_of(content))


def read_execution_id(bytes payload not None):
    cdef Cursor cursor
    cdef Cursor execution_id
    cdef Field field
    cdef bint found = False
    cursor.at = <const unsigned char*>PyBytes_AS_STRING(payload)
    cursor.end = cursor.at + PyBytes_GET_SIZE(payload)
    execution_id = Cursor(cursor.at, cursor.at)
    while cursor.at < cursor.end:
        if not read_field(&cursor, &field):
            return None
        if field.tag == EXECUTION_ID:
            if found:
                return None
            found = True
            execution_id = field.content
    return text_of(&execution_id)


# --- what a submission is worth, and what makes it the same as another ---


def json_parts(bytes text not None):
    cdef const unsigned char* at = <const unsigned char*>PyBytes_AS_STRING(text)
    cdef const unsigned char* end = at + PyBytes_GET_SIZE(text)
    cdef Py_ssize_t count = 0
    while at < end:
        if at[0] == b"{" or at[0] == b"[" or at[0] == b",":
            count += 1
        elif at[0] == b":":
            count += 2
        at += 1
    return count


def framed(tuple parts not None):
    cdef Py_ssize_t size_bytes = 0
    cdef bytes part
    cdef bytes joined
    cdef char* at
    cdef uint64_t head
    for part in parts:
        if part is None:
            raise TypeError("a part is None: it must be bytes")
        size_bytes += <Py_ssize_t>sizeof(head) + PyBytes_GET_SIZE(part)
    joined = PyBytes_FromStringAndSize(NULL, size_bytes)
    at = PyBytes_AS_STRING(joined)
    for part in parts:
        head = htole64(PyBytes_GET_SIZE(part))
        memcpy(at, &head, sizeof(head))
        at += sizeof(head)
        memcpy(at, PyBytes_AS_STRING(part), PyBytes_GET_SIZE(part))
        at += PyBytes_GET_SIZE(part)
    return joined
