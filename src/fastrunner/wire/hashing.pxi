"""Stage 1, routing: SipHash-2-4, so that nobody who does not know the key finds two ids with one hash."""

from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.string cimport memcpy

cdef extern from "<endian.h>" nogil:
    uint64_t le64toh(uint64_t)
    uint64_t htole64(uint64_t)


cdef inline uint64_t rotated(uint64_t word, int count) noexcept nogil:
    return (word << count) | (word >> (64 - count))


cdef inline void sip_round(uint64_t* state) noexcept nogil:
    state[0] += state[1]
    state[2] += state[3]
    state[1] = rotated(state[1], 13) ^ state[0]
    state[3] = rotated(state[3], 16) ^ state[2]
    state[0] = rotated(state[0], 32)
    state[2] += state[1]
    state[0] += state[3]
    state[1] = rotated(state[1], 17) ^ state[2]
    state[3] = rotated(state[3], 21) ^ state[0]
    state[2] = rotated(state[2], 32)


cdef inline uint64_t word_at(const char* text, size_t size_bytes) noexcept nogil:
    cdef uint64_t word = 0
    memcpy(&word, text, size_bytes)
    return le64toh(word)


cdef uint64_t sip_hash(const char* text, size_t size_bytes, const uint64_t* key) noexcept nogil:
    """SipHash-2-4 of some bytes, with a key of two words."""
    cdef uint64_t[4] state
    cdef uint64_t word
    cdef size_t at = 0
    state[0] = key[0] ^ 0x736f6d6570736575ULL
    state[1] = key[1] ^ 0x646f72616e646f6dULL
    state[2] = key[0] ^ 0x6c7967656e657261ULL
    state[3] = key[1] ^ 0x7465646279746573ULL
    while True:
        if at + 8 <= size_bytes:
            word = word_at(text + at, 8)
        else:
            word = word_at(text + at, size_bytes - at) | <uint64_t>(size_bytes & 255) << 56
        state[3] ^= word
        sip_round(state)
        sip_round(state)
        state[0] ^= word
        if at + 8 > size_bytes:
            break
        at += 8
    state[2] ^= 0xff
    for _ in range(4):
        sip_round(state)
    return state[0] ^ state[1] ^ state[2] ^ state[3]


cdef inline int hash_text(str text, const uint64_t* key, uint64_t* result) except -1:
    """Raises UnicodeEncodeError for text that is none."""
    cdef Py_ssize_t size_bytes
    cdef const char* content = PyUnicode_AsUTF8AndSize(text, &size_bytes)
    result[0] = sip_hash(content, size_bytes, key)
    return 0
