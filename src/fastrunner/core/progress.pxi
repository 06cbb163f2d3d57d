"""Stage 6, events: a WorkflowProgressEvent is encoded here once; the same bytes are stored, sent and streamed.

Rules: fields in ascending order, defaults left out, as protobuf itself writes them. What is constant for a task or an
execution is encoded beforehand; an event is then a handful of copies into one buffer per turn. Each event is written
as a length-delimited field 1, so that the events of a turn are a ReportProgressBatchRequest.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.string cimport memcpy

import orjson as _orjson

cdef object INT32_MIN = -(1 << 31)
cdef object INT32_MAX = (1 << 31) - 1
cdef object dump_json = _orjson.dumps
cdef object load_json = _orjson.loads

cdef enum:
    FIELD_EXECUTION_ID = 1
    FIELD_EVENT_TYPE = 2
    FIELD_WORKFLOW_NAME = 3
    FIELD_TASK_NAME = 4
    FIELD_STATUS = 5
    FIELD_MESSAGE = 6
    FIELD_TIMESTAMP_MS = 7
    FIELD_ERROR = 9
    FIELD_SEQUENCE_NUMBER = 10
    FIELD_TASK_PROGRESS = 11
    FIELD_TASK_REFERENCE = 20
    FIELD_ATTEMPT = 21
    FIELD_OUTPUT_JSON = 22
    FIELD_ITERATION = 23

    VARINT_SIZE_MAX = 10
    EVENT_BUFFER_SIZE = 2048
    EVENT_BUFFER_SIZE_KEPT_MAX = 65536


cdef inline int varint_size(unsigned long long value) noexcept:
    cdef int size = 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size


cdef inline char *put_varint(char *at, unsigned long long value) noexcept:
    while value >= 0x80:
        at[0] = <char> (value | 0x80)
        at += 1
        value >>= 7
    at[0] = <char> value
    return at + 1


cdef inline char *put_bytes(char *at, bytes data) noexcept:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
    memcpy(at, PyBytes_AS_STRING(data), size)
    return at + size


cdef bytes with_varint(bytes before, unsigned long long value):
    """One more number of a packed field; `before` may be None."""
    cdef char buffer[VARINT_SIZE_MAX]
    cdef char *end = put_varint(buffer, value)
    cdef bytes one = PyBytes_FromStringAndSize(buffer, end - buffer)
    return one if before is None else before + one


cdef bytes varint_field(int number, unsigned long long value):
    """One varint field; nothing for the default."""
    cdef char buffer[2 * VARINT_SIZE_MAX]
    cdef char *end
    if value == 0:
        return b""
    end = put_varint(put_varint(buffer, number << 3), value)
    return PyBytes_FromStringAndSize(buffer, end - buffer)


cdef bytes bytes_field(int number, bytes value):
    """One length-delimited field; nothing for the default."""
    cdef char buffer[2 * VARINT_SIZE_MAX]
    cdef char *end
    if PyBytes_GET_SIZE(value) == 0:
        return b""
    end = put_varint(put_varint(buffer, (number << 3) | 2), PyBytes_GET_SIZE(value))
    return PyBytes_FromStringAndSize(buffer, end - buffer) + value


cdef bytes text_field(int number, str value):
    return bytes_field(number, value.encode("utf-8", "replace"))


cdef class EventParts:
    """The constant fields of one kind of event of one plan or task."""

    def __cinit__(self, str event_type, str workflow_name, str task_name, str status, str message, int progress,
                  str reference):
        self.head = (
            text_field(FIELD_EVENT_TYPE, event_type)
            + text_field(FIELD_WORKFLOW_NAME, workflow_name)
            + text_field(FIELD_TASK_NAME, task_name)
            + text_field(FIELD_STATUS, status)
        )
        self.message = text_field(FIELD_MESSAGE, message)
        self.tail = varint_field(FIELD_TASK_PROGRESS, progress) + text_field(FIELD_TASK_REFERENCE, reference)


cdef str cut_text(object text, Py_ssize_t size_max):
    """A text as events carry it; one that is cut says so."""
    if len(text) <= size_max:
        return str(text)
    return f"{text[:size_max]}... (cut: {len(text)} characters)"


cdef str error_message(dict error, Py_ssize_t size_max):
    """Title and detail as one sentence, each cut."""
    cdef list parts = [cut_text(error[key], size_max) for key in ("title", "detail") if error.get(key)]
    return ": ".join(parts) or cut_text(error["type"], size_max)


cdef bytes error_field(dict error, Py_ssize_t size_max):
    """ErrorDetails as a field of an event, each text cut."""
    # Any integer may be raised; the field has 32 bits.
    cdef long long status = min(max(error["status"], INT32_MIN), INT32_MAX)
    return bytes_field(FIELD_ERROR, (
        text_field(1, error_code(error["type"]))
        + text_field(2, error_message(error, size_max))
        + text_field(4, cut_text(error["type"], size_max))
        + varint_field(5, <unsigned long long> status)
        + text_field(6, cut_text(error.get("title") or "", size_max))
        + text_field(7, cut_text(error.get("detail") or "", size_max))
        + text_field(8, cut_text(error["instance"], size_max))
    ))


cdef class EventBuffer:
    """The encoded events of one turn."""

    def __dealloc__(self):
        PyMem_Free(self.data)

    cdef char *reserve(self, Py_ssize_t size) except NULL:
        """Room for `size` more bytes; gives where they go."""
        cdef Py_ssize_t capacity = max(self.capacity, <Py_ssize_t> EVENT_BUFFER_SIZE)
        cdef char *data
        if self.size + size > self.capacity:
            while self.size + size > capacity:
                capacity *= 2
            data = <char *> PyMem_Realloc(self.data, capacity)
            if data is NULL:
                raise MemoryError
            self.data = data
            self.capacity = capacity
        return self.data + self.size

    cdef bytes take(self):
        """The events so far; the buffer is empty, and keeps no more memory than most turns need."""
        cdef bytes taken = PyBytes_FromStringAndSize(self.data, self.size) if self.size else b""
        self.size = 0
        if self.capacity > EVENT_BUFFER_SIZE_KEPT_MAX:
            PyMem_Free(self.data)
            self.data = NULL
            self.capacity = 0
        return taken

    cdef int add(self, bytes id_field, EventParts parts, bytes message, bytes time_field, bytes error,
                 long long sequence, int attempt, bytes output, bytes iteration) except -1:
        """Appends one event. `message`, `time_field` and `error` are encoded fields, `output` is JSON text; `iteration`
        has the indices one after the other, as the packed field holds them."""
        cdef Py_ssize_t size = (
            PyBytes_GET_SIZE(id_field) + PyBytes_GET_SIZE(parts.head) + PyBytes_GET_SIZE(message)
            + PyBytes_GET_SIZE(time_field) + PyBytes_GET_SIZE(error) + 1 + varint_size(sequence)
            + PyBytes_GET_SIZE(parts.tail)
        )
        cdef char *at
        if attempt:
            size += 2 + varint_size(attempt)
        if output is not None:
            size += 2 + varint_size(PyBytes_GET_SIZE(output)) + PyBytes_GET_SIZE(output)
        if iteration is not None:
            # Its tag takes two bytes.
            size += 2 + varint_size(PyBytes_GET_SIZE(iteration)) + PyBytes_GET_SIZE(iteration)
        at = self.reserve(1 + VARINT_SIZE_MAX + size)
        at[0] = 0x0A
        at = put_varint(at + 1, size)
        at = put_bytes(put_bytes(put_bytes(at, id_field), parts.head), message)
        at = put_bytes(put_bytes(at, time_field), error)
        at[0] = FIELD_SEQUENCE_NUMBER << 3
        at = put_bytes(put_varint(at + 1, sequence), parts.tail)
        if attempt:
            at = put_varint(put_varint(at, FIELD_ATTEMPT << 3), attempt)
        if output is not None:
            at = put_varint(put_varint(at, (FIELD_OUTPUT_JSON << 3) | 2), PyBytes_GET_SIZE(output))
            at = put_bytes(at, output)
        if iteration is not None:
            at = put_varint(put_varint(at, (FIELD_ITERATION << 3) | 2), PyBytes_GET_SIZE(iteration))
            at = put_bytes(at, iteration)
        self.size = at - self.data
        return 0
