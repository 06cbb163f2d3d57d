"""Stage 1, service: header blocks (RFC 7541): those that clients send, read, and headers that need no table, written.

Theory of operation: a client puts what it says again and again into a table, and names it by number from then on. The
table has to be kept for blocks that nobody wants as well. A block of which nothing goes into the table, which is what
most clients send for most calls, means the same as before until something does: it is looked up as a whole.

Rules: what comes is a stranger's, so no number is used before it has been compared with what there is. What a block
unpacks to is kept up to a bound; beyond it only the table is.
"""

cdef Py_ssize_t TABLE_SIZE_BYTES_MAX = 4096
"""What a table has room for unless the settings say otherwise, and ours do not."""
cdef Py_ssize_t ENTRY_SIZE_BYTES = 32
"""What an entry counts as beyond its name and value."""
cdef Py_ssize_t STATIC_COUNT = len(STATIC)
cdef Py_ssize_t KNOWN_BLOCKS_MAX = 16
cdef Py_ssize_t KNOWN_BLOCK_SIZE_BYTES_MAX = 256
cdef Py_ssize_t NUMBER_MAX = 1 << 24
cdef int LEAF = 512
cdef int END_OF_TEXT = 256

# Huffman's code as a tree: where 0 and 1 lead from each node; below zero: a symbol, less LEAF.
cdef short _tree[512][2]


cdef void _grow_tree() except *:
    cdef int code = 0, length = 0, nodes = 1, node, at, side, bits, symbol
    for bits, symbol in sorted([(bits, symbol) for symbol, bits in enumerate(HUFFMAN_BITS)]):
        code <<= bits - length
        length = bits
        node = 0
        for at in range(length - 1, 0, -1):
            side = (code >> at) & 1
            if not _tree[node][side]:
                _tree[node][side] = <short>nodes
                nodes += 1
            node = _tree[node][side]
        _tree[node][code & 1] = <short>(symbol - LEAF)
        code += 1


_grow_tree()


cdef bytes _unpacked(const unsigned char* at, Py_ssize_t size):
    """Text in Huffman's code; None if it is broken."""
    # The shortest code has five bits.
    cdef bytes text = PyBytes_FromStringAndSize(NULL, size * 8 // 5 + 1)
    cdef unsigned char* out = <unsigned char*>PyBytes_AS_STRING(text)
    cdef Py_ssize_t count = 0, place
    cdef int node = 0, shift, side, depth = 0
    cdef bint is_ones = True
    for place in range(size):
        for shift in range(7, -1, -1):
            side = (at[place] >> shift) & 1
            depth += 1
            is_ones = is_ones and side
            node = _tree[node][side]
            if node < 0:
                if node + LEAF == END_OF_TEXT:
                    return None
                out[count] = <unsigned char>(node + LEAF)
                count += 1
                node = depth = 0
                is_ones = True
    # What fills the last byte up is the beginning of the code of the end.
    if depth > 7 or not is_ones:
        return None
    return text[:count]


cdef class _HeaderDecoder:
    """The table of one connection, the newest entry last."""

    cdef list _entries
    cdef Py_ssize_t _size, _size_max
    cdef int kind
    cdef dict _known
    cdef bint _is_changed
    cdef const unsigned char* _at
    cdef const unsigned char* _end

    def __cinit__(self):
        self._entries = []
        self._size_max = TABLE_SIZE_BYTES_MAX
        self._known = {}

    cdef list decode(self, bytes block, Py_ssize_t size_max):
        """Names and values, empty if they are more than `size_max` bytes; None if the block is broken.

        `kind` is what they are together.
        """
        cdef Py_ssize_t size = PyBytes_GET_SIZE(block)
        cdef object known
        cdef list found
        if size <= KNOWN_BLOCK_SIZE_BYTES_MAX:
            known = self._known.get(block)
            if known is not None:
                self.kind = REQUEST
                return <list>known
        self._is_changed, self.kind = False, MALFORMED
        self._at = <const unsigned char*>PyBytes_AS_STRING(block)
        self._end = self._at + size
        found = self._decode(size_max)
        if self._is_changed:
            self._known.clear()
        elif self.kind == REQUEST and size <= KNOWN_BLOCK_SIZE_BYTES_MAX and len(self._known) < KNOWN_BLOCKS_MAX:
            self._known[block] = found
        return found

    cdef list _decode(self, Py_ssize_t size_max):
        cdef list found = []
        cdef Py_ssize_t kept = 0
        cdef tuple entry
        while self._at < self._end:
            if self._at[0] & 0xE0 == 0x20:
                # The table's size may change at the beginning of a block only.
                if kept or not self._resize():
                    return None
                continue
            entry = self._header()
            if entry is None:
                return None
            kept += _size_of(entry)
            if kept <= size_max:
                found.append(entry)
            elif found:
                found = []
        self.kind = TOO_LARGE if kept > size_max else _kind_of(found)
        return found

    cdef bint _resize(self) except -1:
        cdef Py_ssize_t size = self._number(5)
        if size < 0 or size > TABLE_SIZE_BYTES_MAX:
            return False
        self._size_max = size
        self._is_changed = True
        self._shrink(0)
        return True

    cdef tuple _header(self):
        """The next one; None if it is broken."""
        cdef unsigned char first = self._at[0]
        cdef Py_ssize_t number
        cdef tuple entry
        cdef bytes name, value
        if first & 0x80:
            return self._entry(self._number(7))
        number = self._number(6 if first & 0x40 else 4)
        if number > 0:
            entry = self._entry(number)
            name = None if entry is None else <bytes>entry[0]
        else:
            name = self._text() if number == 0 else None
        value = None if name is None else self._text()
        if value is None:
            return None
        entry = (name, value)
        if first & 0x40:
            self._add(entry)
        return entry

    cdef tuple _entry(self, Py_ssize_t number):
        cdef Py_ssize_t place
        if number <= 0:
            return None
        if number <= STATIC_COUNT:
            return <tuple>STATIC[number - 1]
        place = len(self._entries) - (number - STATIC_COUNT)
        return <tuple>self._entries[place] if place >= 0 else None

    cdef void _add(self, tuple entry) except *:
        cdef Py_ssize_t size = _size_of(entry)
        self._is_changed = True
        self._shrink(size)
        if size <= self._size_max:
            self._entries.append(entry)
            self._size += size

    cdef void _shrink(self, Py_ssize_t wanted) except *:
        """Lets the oldest go until there is so much room, or none are left."""
        cdef Py_ssize_t count = 0
        while self._size + wanted > self._size_max and count < len(self._entries):
            self._size -= _size_of(<tuple>self._entries[count])
            count += 1
        if count:
            del self._entries[:count]

    cdef Py_ssize_t _number(self, int bits) noexcept:
        """The next number; -1 if it is cut off, or larger than any can be."""
        cdef Py_ssize_t mask = (1 << bits) - 1
        cdef Py_ssize_t number = self._at[0] & mask
        cdef int shift = 0
        cdef unsigned char byte
        self._at += 1
        if number < mask:
            return number
        while self._at < self._end and shift <= 21:
            byte = self._at[0]
            number += <Py_ssize_t>(byte & 127) << shift
            shift += 7
            self._at += 1
            if byte < 128:
                return number if number <= NUMBER_MAX else -1
        return -1

    cdef bytes _text(self):
        """The next text; None if it is broken."""
        cdef const unsigned char* at
        cdef Py_ssize_t size
        cdef bint is_packed
        if self._at >= self._end:
            return None
        is_packed = self._at[0] >= 128
        size = self._number(7)
        if size < 0 or size > self._end - self._at:
            return None
        at = self._at
        self._at += size
        return _unpacked(at, size) if is_packed else PyBytes_FromStringAndSize(<const char*>at, size)


cdef inline Py_ssize_t _size_of(tuple entry) noexcept:
    return PyBytes_GET_SIZE(<bytes>entry[0]) + PyBytes_GET_SIZE(<bytes>entry[1]) + ENTRY_SIZE_BYTES


def header(bytes name, bytes value):
    """One header as a literal that no table keeps."""
    return b"\0" + _text_of(name) + _text_of(value)


cdef bytes _text_of(bytes text):
    cdef Py_ssize_t rest = PyBytes_GET_SIZE(text)
    cdef list sizes = [min(rest, 127)]
    if rest >= 127:
        rest -= 127
        while rest >= 128:
            sizes.append(rest % 128 + 128)
            rest //= 128
        sizes.append(rest)
    return bytes(sizes) + text
