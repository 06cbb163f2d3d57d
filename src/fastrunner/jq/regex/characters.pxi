"""Stage 4, expressions: sets of characters for regular expressions: properties, classes, case folding.

Rules: a set answers for a code point without Python objects. General categories come from Python's own Unicode data,
256 code points at a time at their first use; every other property is made from them, as Oniguruma does.
"""

cimport cython
from cpython.unicode cimport Py_UNICODE_ISLOWER, Py_UNICODE_ISUPPER
from libc.stdlib cimport free, malloc
from libc.string cimport memset

import unicodedata as _unicodedata

cdef struct Property:
    int kind
    # Bit i stands for CATEGORIES[i].
    unsigned int mask
    bint negated

cdef struct CharacterSet:
    unsigned long long low[4]
    unsigned int* ranges
    int range_count
    Property* properties
    int property_count
    bint negated

cdef enum PropertyKind:
    BY_CATEGORY
    IS_LOWER
    IS_UPPER
    IS_ALPHA
    IS_ALNUM
    IS_WORD
    IS_WORD_IN_SET

cdef unsigned int CODE_POINT_MAX = 0x10FFFF
cdef tuple CATEGORIES = (
    "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po",
    "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co", "Cn",
)
cdef dict CATEGORY_NUMBERS = {name: number for number, name in enumerate(CATEGORIES)}
cdef unsigned char* CATEGORY_PAGES[0x1100]
cdef dict CATEGORY_NAMES = {
    "letter": "L", "uppercaseletter": "Lu", "lowercaseletter": "Ll", "titlecaseletter": "Lt", "modifierletter": "Lm",
    "otherletter": "Lo", "mark": "M", "combiningmark": "M", "nonspacingmark": "Mn", "spacingmark": "Mc",
    "enclosingmark": "Me", "number": "N", "decimalnumber": "Nd", "letternumber": "Nl", "othernumber": "No",
    "punctuation": "P", "connectorpunctuation": "Pc", "dashpunctuation": "Pd", "openpunctuation": "Ps",
    "closepunctuation": "Pe", "initialpunctuation": "Pi", "finalpunctuation": "Pf", "otherpunctuation": "Po",
    "symbol": "S", "mathsymbol": "Sm", "currencysymbol": "Sc", "modifiersymbol": "Sk", "othersymbol": "So",
    "separator": "Z", "spaceseparator": "Zs", "lineseparator": "Zl", "paragraphseparator": "Zp", "other": "C",
    "control": "Cc", "cntrl": "Cc", "format": "Cf", "surrogate": "Cs", "privateuse": "Co", "unassigned": "Cn",
    "digit": "Nd", "casedletter": "LC", "punct": "P",
}
cdef list SPACES = [(9, 13), (32, 32), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A),
                    (0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000)]
cdef list XDIGITS = [(48, 57), (65, 70), (97, 102)]
# Code points of common scripts; those not assigned are left out.
cdef dict SCRIPTS = {
    "latin": [
        (0x41, 0x5A), (0x61, 0x7A), (0xAA, 0xAA), (0xBA, 0xBA), (0xC0, 0xD6), (0xD8, 0xF6), (0xF8, 0x2B8),
        (0x2E0, 0x2E4), (0x1D00, 0x1D25), (0x1D2C, 0x1D5C), (0x1D62, 0x1D65), (0x1D6B, 0x1D77), (0x1D79, 0x1DBE),
        (0x1E00, 0x1EFF), (0x2071, 0x2071), (0x207F, 0x207F), (0x2090, 0x209C), (0x212A, 0x212B), (0x2132, 0x2132),
        (0x214E, 0x214E), (0x2160, 0x2188), (0x2C60, 0x2C7F), (0xA722, 0xA787), (0xA78B, 0xA7FF), (0xAB30, 0xAB5A),
        (0xAB5C, 0xAB64), (0xAB66, 0xAB69), (0xFB00, 0xFB06), (0xFF21, 0xFF3A), (0xFF41, 0xFF5A), (0x10780, 0x107BA),
        (0x1DF00, 0x1DF1E),
    ],
    "greek": [
        (0x370, 0x373), (0x375, 0x377), (0x37A, 0x37D), (0x37F, 0x37F), (0x384, 0x384), (0x386, 0x386),
        (0x388, 0x3E1), (0x3F0, 0x3FF), (0x1D26, 0x1D2A), (0x1D5D, 0x1D61), (0x1D66, 0x1D6A), (0x1DBF, 0x1DBF),
        (0x1F00, 0x1FFE), (0x2126, 0x2126), (0xAB65, 0xAB65), (0x10140, 0x1018E), (0x101A0, 0x101A0),
        (0x1D200, 0x1D245),
    ],
    "cyrillic": [
        (0x400, 0x484), (0x487, 0x52F), (0x1C80, 0x1C88), (0x1D2B, 0x1D2B), (0x1D78, 0x1D78), (0x2DE0, 0x2DFF),
        (0xA640, 0xA69F), (0xFE2E, 0xFE2F),
    ],
    "armenian": [(0x531, 0x58F), (0xFB13, 0xFB17)],
    "hebrew": [(0x591, 0x5F4), (0xFB1D, 0xFB4F)],
    "thai": [(0xE01, 0xE3A), (0xE40, 0xE5B)],
    "hiragana": [(0x3041, 0x3096), (0x309D, 0x309F), (0x1B001, 0x1B11F), (0x1B150, 0x1B152), (0x1F200, 0x1F200)],
    "katakana": [
        (0x30A1, 0x30FA), (0x30FD, 0x30FF), (0x31F0, 0x31FF), (0x32D0, 0x32FE), (0x3300, 0x3357), (0xFF66, 0xFF6F),
        (0xFF71, 0xFF9D), (0x1AFF0, 0x1B000), (0x1B120, 0x1B122), (0x1B164, 0x1B167),
    ],
    "hangul": [
        (0x1100, 0x11FF), (0x302E, 0x302F), (0x3131, 0x318E), (0x3200, 0x321E), (0x3260, 0x327E), (0xA960, 0xA97C),
        (0xAC00, 0xD7A3), (0xD7B0, 0xD7FB), (0xFFA0, 0xFFDC),
    ],
    "han": [
        (0x2E80, 0x2FD5), (0x3005, 0x3005), (0x3007, 0x3007), (0x3021, 0x3029), (0x3038, 0x303B), (0x3400, 0x4DBF),
        (0x4E00, 0x9FFF), (0xF900, 0xFAD9), (0x16FE2, 0x16FE3), (0x16FF0, 0x16FF1), (0x20000, 0x2FA1D),
        (0x30000, 0x3134A),
    ],
}
# Beyond so many code points a range is taken as it is: all of it is assigned but for its end.
cdef int SCRIPT_RANGE_SMALL = 1_000
cdef dict SCRIPTS_KNOWN = {}


cdef object refuse(str message):
    """A pattern that does not compile."""
    raise ExpressionError("Regex failure: " + message)


# --- properties ---

cdef unsigned int mask_of(str name):
    """The categories whose names begin so."""
    cdef unsigned int mask = 0
    cdef int number
    if name == "LC":
        return mask_of("Lu") | mask_of("Ll") | mask_of("Lt")
    for number in range(len(CATEGORIES)):
        if (<str>CATEGORIES[number]).startswith(name):
            mask |= 1u << number
    return mask


cdef unsigned int LETTER_MASK = mask_of("L") | mask_of("Nl")
cdef unsigned int WORD_MASK = LETTER_MASK | mask_of("M") | mask_of("Nd") | mask_of("Pc")
cdef unsigned int DIGIT_MASK = mask_of("Nd")
cdef unsigned int MARK_MASK = mask_of("Mc") | mask_of("Mn")
cdef unsigned int CATEGORIES_MASK = (1u << 30) - 1


cdef int fill_category_page(int page) except -1:
    cdef unsigned char* numbers = <unsigned char*>malloc(256)
    cdef int i
    if numbers == NULL:
        raise MemoryError
    try:
        for i in range(256):
            numbers[i] = CATEGORY_NUMBERS[_unicodedata.category(chr(page * 256 + i))]
    except BaseException:
        free(numbers)
        raise
    CATEGORY_PAGES[page] = numbers
    return 0


cdef inline unsigned int category_bit(unsigned int c) except 0:
    if CATEGORY_PAGES[c >> 8] == NULL:
        fill_category_page(c >> 8)
    return 1u << CATEGORY_PAGES[c >> 8][c & 255]


cdef inline bint is_circled(unsigned int c) noexcept:
    """Symbols that are letters although their category is So."""
    return (0x24B6 <= c <= 0x24E9 or 0x1F130 <= c <= 0x1F149 or 0x1F150 <= c <= 0x1F169 or 0x1F170 <= c <= 0x1F189)


cdef bint is_alphabetic(unsigned int c) except -1:
    """Unicode's Alphabetic. Of the marks, vowel signs count and accents do not: the former do not combine by class."""
    cdef unsigned int bit = category_bit(c)
    if bit & LETTER_MASK:
        return True
    if bit & MARK_MASK:
        if c == 0x345 or 0x5B0 <= c <= 0x5C7 or 0x610 <= c <= 0x61A or 0x64B <= c <= 0x657 or c == 0x670:
            return True
        return _unicodedata.combining(chr(c)) == 0 and not 0xFE00 <= c <= 0xFE0F and c < 0xE0000
    return is_circled(c)


cdef bint is_word(unsigned int c) except -1:
    if c < 128:
        return 97 <= c <= 122 or 65 <= c <= 90 or 48 <= c <= 57 or c == 95
    return (category_bit(c) & WORD_MASK) != 0 or is_circled(c) or is_latin_number(c)


cdef inline bint is_latin_number(unsigned int c) noexcept:
    """Superscripts and fractions of Latin-1: word characters to Oniguruma, but not within brackets."""
    return c == 0xB2 or c == 0xB3 or c == 0xB9 or 0xBC <= c <= 0xBE


cdef bint has_property(Property* wanted, unsigned int c) except -1:
    cdef bint found
    if wanted.kind == BY_CATEGORY:
        found = (category_bit(c) & wanted.mask) != 0
    elif wanted.kind == IS_LOWER:
        found = Py_UNICODE_ISLOWER(c)
    elif wanted.kind == IS_UPPER:
        found = Py_UNICODE_ISUPPER(c)
    elif wanted.kind == IS_WORD:
        found = is_word(c)
    elif wanted.kind == IS_WORD_IN_SET:
        found = is_word(c) and (c > 255 or not is_latin_number(c))
    else:
        found = is_alphabetic(c) or (wanted.kind == IS_ALNUM and (category_bit(c) & DIGIT_MASK) != 0)
    return found != wanted.negated


# --- sets ---

cdef bint in_high_set(CharacterSet* chars, unsigned int c) except -1:
    """Whether a code point is in a set, by its ranges and properties."""
    cdef int low = 0
    cdef int high = chars.range_count
    cdef int middle
    while low < high:
        middle = (low + high) >> 1
        if c < chars.ranges[2 * middle]:
            high = middle
        elif c > chars.ranges[2 * middle + 1]:
            low = middle + 1
        else:
            return not chars.negated
    for middle in range(chars.property_count):
        if has_property(&chars.properties[middle], c):
            return not chars.negated
    return chars.negated


cdef inline bint in_set(CharacterSet* chars, unsigned int c) except -1:
    if c < 256:
        return (chars.low[c >> 6] >> (c & 63)) & 1
    return in_high_set(chars, c)


cdef list merged_ranges(list ranges):
    """The same code points in order, without overlaps."""
    cdef list merged = []
    for first, last in sorted(ranges):
        if merged and first <= merged[len(merged) - 1][1] + 1:
            if last > merged[len(merged) - 1][1]:
                merged[len(merged) - 1] = (merged[len(merged) - 1][0], last)
        else:
            merged.append((first, last))
    return merged


@cython.internal
@cython.final
cdef class SetSpec:
    """A set in the making: ranges, properties (kind, mask, negated), and whether all of it is turned round."""

    cdef list ranges, properties
    cdef bint negated
    cdef CharacterSet chars

    def __cinit__(self):
        self.ranges = []
        self.properties = []

    def __dealloc__(self):
        free(self.chars.ranges)
        free(self.chars.properties)

    cdef int add(self, object first, object last) except -1:
        self.ranges.append((first, last))
        return 0

    cdef int add_property(self, int kind, unsigned int mask, bint negated) except -1:
        self.properties.append((kind, mask, negated))
        return 0

    cdef int finish(self) except -1:
        """Makes the C set; may be called again after additions."""
        cdef CharacterSet* chars = &self.chars
        cdef int i
        free(chars.ranges)
        free(chars.properties)
        chars.ranges = NULL
        chars.properties = NULL
        self.ranges = merged_ranges(self.ranges)
        chars.range_count = len(self.ranges)
        chars.property_count = len(self.properties)
        chars.ranges = <unsigned int*>malloc((2 * chars.range_count + 1) * sizeof(unsigned int))
        chars.properties = <Property*>malloc((chars.property_count + 1) * sizeof(Property))
        if chars.ranges == NULL or chars.properties == NULL:
            raise MemoryError
        for i in range(chars.range_count):
            chars.ranges[2 * i] = self.ranges[i][0]
            chars.ranges[2 * i + 1] = self.ranges[i][1]
        for i in range(chars.property_count):
            chars.properties[i].kind = self.properties[i][0]
            chars.properties[i].mask = self.properties[i][1]
            chars.properties[i].negated = self.properties[i][2]
        chars.negated = self.negated
        memset(chars.low, 0, sizeof(chars.low))
        for i in range(256):
            if in_high_set(chars, i):
                chars.low[i >> 6] |= 1ull << (i & 63)
        return 0

    cdef bint may_be_high(self) except -1:
        """Whether a code point from 256 may be in it."""
        if self.negated or self.properties:
            return True
        return bool(self.ranges) and self.ranges[len(self.ranges) - 1][1] > 255


cdef int add_ctype(SetSpec spec, str name, bint negated) except -1:
    """Adds what `\\d`, `[:alpha:]` or `\\p{Alnum}` stand for; False if there is no such name."""
    cdef list ranges = None
    if name == "word":
        spec.add_property(IS_WORD, 0, negated)
    elif name == "setword":
        spec.add_property(IS_WORD_IN_SET, 0, negated)
    elif name == "lower" or name == "lowercase":
        spec.add_property(IS_LOWER, 0, negated)
    elif name == "upper" or name == "uppercase":
        spec.add_property(IS_UPPER, 0, negated)
    elif name == "alpha" or name == "alphabetic":
        spec.add_property(IS_ALPHA, 0, negated)
    elif name == "alnum":
        spec.add_property(IS_ALNUM, 0, negated)
    elif name == "any":
        ranges = [(0, CODE_POINT_MAX)]
    elif name == "ascii":
        ranges = [(0, 127)]
    elif name == "space" or name == "whitespace":
        ranges = SPACES
    elif name == "blank":
        ranges = [(9, 9)] + [pair for pair in SPACES if pair[0] == 32 or (pair[0] > 0x85 and pair[0] != 0x2028)]
    elif name == "xdigit" or name == "asciihexdigit":
        ranges = XDIGITS
    elif name == "posixpunct":
        spec.add_property(BY_CATEGORY, mask_of("P") | mask_of("S"), negated)
    elif name == "graph":
        add_graph(spec, False, negated)
    elif name == "print":
        add_graph(spec, True, negated)
    elif name == "assigned":
        spec.add_property(BY_CATEGORY, mask_of("Cn"), not negated)
    else:
        return add_category_or_script(spec, name, negated)
    if ranges is not None:
        add_ranges(spec, ranges, negated)
    return 1


cdef int add_graph(SetSpec spec, bint spaces, bint negated) except -1:
    """All that is assigned and visible, and if wanted the white space that is no control character."""
    cdef unsigned int mask = CATEGORIES_MASK & ~(mask_of("Cc") | mask_of("Cn") | mask_of("Cs") | mask_of("Z"))
    if spaces:
        mask |= mask_of("Zs")
    spec.add_property(BY_CATEGORY, mask, negated)
    return 0


cdef list complement(list ranges):
    cdef list result = []
    cdef object at = 0
    for first, last in merged_ranges(ranges):
        if first > at:
            result.append((at, first - 1))
        at = last + 1
    if at <= CODE_POINT_MAX:
        result.append((at, CODE_POINT_MAX))
    return result


cdef int add_ranges(SetSpec spec, list ranges, bint negated) except -1:
    spec.ranges.extend(complement(ranges) if negated else ranges)
    return 0


cdef int add_category_or_script(SetSpec spec, str name, bint negated) except -1:
    cdef str category = CATEGORY_NAMES.get(name, name.capitalize() if len(name) < 3 else "")
    cdef unsigned int mask
    if name == "lc":
        category = "LC"
    mask = mask_of(category) if category else 0
    if mask:
        spec.add_property(BY_CATEGORY, mask, negated)
    elif name in SCRIPTS:
        add_ranges(spec, script_ranges(name), negated)
    else:
        return 0
    return 1


cdef list script_ranges(str name):
    """A script's characters, made once and paid for each time."""
    cdef list ranges = SCRIPTS_KNOWN.get(name)
    cdef unsigned int unassigned = mask_of("Cn")
    for first, last in SCRIPTS[name]:
        if last - first <= SCRIPT_RANGE_SMALL:
            charge((last - first) >> 2)
    if ranges is None:
        ranges = []
        for first, last in SCRIPTS[name]:
            if last - first > SCRIPT_RANGE_SMALL:
                ranges.append((first, last))
                continue
            ranges.extend([(code, code) for code in range(first, last + 1) if not category_bit(code) & unassigned])
        ranges = merged_ranges(ranges)
        SCRIPTS_KNOWN[name] = ranges
    return ranges


# --- case folding ---

# Blocks with letters that have case.
cdef list FOLD_BLOCKS = [
    (0x41, 0x58F), (0x10A0, 0x10FF), (0x13A0, 0x13FF), (0x1C80, 0x1CBF), (0x1D79, 0x1D8E), (0x1E00, 0x1FFF),
    (0x2126, 0x2188), (0x24B6, 0x24E9), (0x2C00, 0x2D2D), (0xA640, 0xA7FF), (0xAB30, 0xABBF), (0xFB00, 0xFB17),
    (0xFF21, 0xFF5A), (0x10400, 0x104FF), (0x10570, 0x105BF), (0x10C80, 0x10CF2), (0x118A0, 0x118DF),
    (0x16E40, 0x16E7F), (0x1E900, 0x1E943),
]
# Folded text -> the characters it is the folding of; the text itself included if it is one character.
cdef dict FOLDS = {}


cdef int load_folds() except -1:
    """Reads the foldings once: some thousand characters."""
    cdef dict folds = {}
    if FOLDS:
        return 0
    for first, last in FOLD_BLOCKS:
        for code in range(first, last + 1):
            folded = chr(code).casefold()
            if folded != chr(code):
                known = folds.get(folded)
                if known is None:
                    known = [ord(folded)] if len(folded) == 1 else []
                    folds[folded] = known
                known.append(code)
    FOLDS.update(folds)
    return 0


cdef list fold_codes(str text):
    """Single characters that are the same as `text` but for case."""
    cdef str folded = text.casefold()
    load_folds()
    return FOLDS.get(folded, [ord(folded)] if len(folded) == 1 else [])


cdef list fold_set(SetSpec spec):
    """Closes a set under case; gives the longer texts that stand for one of its characters."""
    cdef list texts = []
    cdef SetSpec plain = SetSpec()
    load_folds()
    plain.ranges = list(spec.ranges)
    plain.properties = list(spec.properties)
    plain.finish()
    charge(len(FOLDS) >> 3)
    for text, codes in FOLDS.items():
        for code in codes:
            if in_set(&plain.chars, code):
                spec.ranges.extend([(other, other) for other in codes])
                if len(<str>text) > 1:
                    texts.append(text)
                break
    return [] if spec.negated else texts
