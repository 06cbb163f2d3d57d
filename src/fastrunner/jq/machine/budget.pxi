"""Stage 4, expressions: the budget of the evaluation in progress.

Rules: a step stands for about 20 ns of work and for at most 64 bytes of new memory, so that one counter bounds both.
Whoever does work that grows with data charges for it before or while doing it, at least one step per container looked
into: a value may hold another one many times at no cost, so that walking it can take for ever. Bulk work goes by bytes
and elements. Sizes are checked before a string or an array is built, not after.
"""

from fastrunner._jq cimport State

cdef extern from *:
    """
    #if defined(__GLIBC__)
    /* One load off the thread's register: as cheap as a global, though this is a loaded library. */
    #define FASTRUNNER_TLS_MODEL __attribute__((tls_model("initial-exec")))
    #else
    #define FASTRUNNER_TLS_MODEL
    #endif
    static __thread void* fastrunner_running FASTRUNNER_TLS_MODEL = NULL;
    """
    void* _running "fastrunner_running"

cdef extern from "Python.h":
    int PyUnicode_KIND(object text)

# Texts up to this length cost no more to compare than a step is worth.
cdef Py_ssize_t TEXT_SIZE_SMALL = 256
# An error raised and caught, and a value put into its message, take about a microsecond each.
cdef Py_ssize_t ERROR_STEPS = 50
# Below this length Python searches text by brute force, from it on in linear time.
cdef Py_ssize_t SEARCH_SIZE_SMALL = 30_000


cdef inline State* running() noexcept:
    """The state of the machine that evaluates in this thread."""
    return <State*>_running


cdef int charge(Py_ssize_t work) except -1:
    """Takes `work` steps from the running evaluation's budget."""
    cdef State* state = running()
    state.steps_left -= work
    if state.steps_left < 0:
        raise BudgetExceeded("expression ran out of steps")
    return 0


cdef inline int charge_text(str text) except -1:
    """For comparing or looking up a text once."""
    if len(text) > TEXT_SIZE_SMALL:
        charge(len(text) * PyUnicode_KIND(text) >> 8)
    return 0


cdef inline int charge_elements(Py_ssize_t count) except -1:
    """For copying or passing over references."""
    return charge(1 + (count >> 2))


cdef int charge_search(Py_ssize_t size, Py_ssize_t wanted) except -1:
    """For finding a text of length `wanted` in one of length `size`."""
    charge(1 + (size >> 3))
    if size < SEARCH_SIZE_SMALL:
        charge((min(wanted, size - wanted) if wanted < size else 0) * size >> 6)
    return 0


cdef int charge_sort(Py_ssize_t count, Py_ssize_t text_size) except -1:
    """For sorting `count` numbers, or texts of `text_size` characters in all."""
    cdef int levels = 1
    while count >> levels:
        levels += 1
    return charge((count + (text_size >> 8)) * levels >> 1)


cdef int check_string(double size) except -1:
    """Before a string of `size` characters is built: refuses one that is too long and charges for it."""
    if size > running().bounds.string_size:
        raise BudgetExceeded("expression built a string that is too long")
    return charge(<Py_ssize_t>size >> 6)


cdef int check_array(double size) except -1:
    """Before an array of `size` elements is built: refuses one that is too long and charges for it."""
    if size > running().bounds.array_size:
        raise BudgetExceeded("expression built an array that is too long")
    return charge_elements(<Py_ssize_t>size)


cdef str sized(str text):
    """A string just built, whose size was bounded beforehand: paid for by its bytes."""
    if len(text) > running().bounds.string_size:
        raise BudgetExceeded("expression built a string that is too long")
    charge(len(text) * PyUnicode_KIND(text) >> 6)
    return text


cdef str joined(list parts, str separator):
    """Texts put together; their length is known before."""
    cdef double size = <double>len(separator) * len(parts)
    for part in parts:
        size += len(<str>part)
    if size > running().bounds.string_size:
        raise BudgetExceeded("expression built a string that is too long")
    charge(len(parts) >> 1)
    return sized(separator.join(parts))


cdef list sorted_texts(object texts):
    """Strings in order of their code points, which is the order of their UTF-8 and so jq's."""
    cdef Py_ssize_t size = 0
    for text in texts:
        size += len(<str>text)
    charge_sort(len(texts), size)
    return sorted(texts)
