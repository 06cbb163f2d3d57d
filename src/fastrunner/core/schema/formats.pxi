"""Stage 4, walk: the formats that drafts 4, 6 and 7 assert, each as its RFC has it.

Rules: text is paid for by its length before it is looked at, and every pattern here takes linear time. An unknown
format is an annotation.
"""

from fastrunner._jq cimport compile_text_pattern
from fastrunner._jq import ExpressionError as _ExpressionError
import re as _re
import unicodedata as _unicodedata
from ipaddress import IPv4Address as _IPv4Address, IPv6Address as _IPv6Address

cdef str PERCENT = "%[0-9A-Fa-f]{2}"
cdef str UNRESERVED_CHARS = r"A-Za-z0-9\-._~!$&'()*+,;="
cdef str BEYOND_ASCII = "\u00a0-\ud7ff\uf900-\ufdcf\ufdf0-\uffef\U00010000-\U000efffd"


cdef str uri_chars(str more):
    return f"(?:[{UNRESERVED_CHARS}{more}]|{PERCENT})*"


cdef object uri_pattern(str beyond, bint is_reference):
    """RFC 3986, and with characters beyond ASCII RFC 3987."""
    cdef str scheme = r"[A-Za-z][A-Za-z0-9+.\-]*:"
    cdef str path = uri_chars(":@/" + beyond)
    cdef str more = uri_chars(":@/?" + beyond)
    cdef str literal = r"\[(?P<literal>[0-9A-Fa-f:.]+|v[0-9A-Fa-f]+\.[^\]\[/?#@%]+)\]"
    cdef str place = (rf"//(?:{uri_chars(':' + beyond)}@)?(?:{literal}|{uri_chars(beyond)})"
                      rf"(?::[0-9]*)?(?=[/?#]|\Z)")
    # Without a scheme, nothing before the first slash may look like one.
    cdef str start = rf"(?:{scheme}|(?![^/?#]*:)|(?=//))" if is_reference else scheme
    return _re.compile(rf"{start}(?:{place}(?:/{path})?|(?!//){path})(?:\?{more})?(?:#{more})?\Z")


cdef object TEMPLATE_PATTERN = _re.compile(
    rf"(?:[^\x00-\x20\"'<>\\^`{{|}}%\x7f]|{PERCENT}|\{{[+#./;?&=,!@|]?VAR(?:,VAR)*\}})*\Z".replace(
        "VAR", rf"(?:[A-Za-z0-9_]|{PERCENT})(?:\.?(?:[A-Za-z0-9_]|{PERCENT}))*(?::[1-9][0-9]{{0,3}}|\*)?"))
cdef object LOCAL_PATTERN = _re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]+)*\Z")
cdef object QUOTED_PATTERN = _re.compile(r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\[\x20-\x7e])*"\Z')
cdef object LABEL_PATTERN = _re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?\Z")
cdef object RELATIVE_PATTERN = _re.compile(r"(?:0|[1-9][0-9]*)(?:#|((?:/.*)?))\Z", _re.DOTALL)
# Marks that may begin no label, and characters IDNA 2008 takes although they are no letters, marks or digits.
cdef str LABEL_EXCEPTIONS = "\u00b7\u0375\u05f3\u05f4\u06fd\u06fe\u0f0b\u3007\u30fb\u200c\u200d"
cdef str LABEL_REFUSED = "\u0640\u07fa\u302e\u302f\u3031\u3032\u3033\u3034\u3035\u303b"

cdef bint asserts_format(object name, int draft):
    cdef tuple row = ASSERTED_FORMATS.get(name) if type(name) is str and draft < 2019 else None
    return row is not None and row[0] <= draft


cdef bint format_matches(SchemaRun run, str name, str value) except -1:
    cdef object check = ASSERTED_FORMATS[name][1]
    cdef object found
    spend(run, 50 + len(value))
    if check is None:
        return is_pattern(run, value)
    if not isinstance(check, _re.Pattern):
        return check(value)
    found = check.match(value)
    if found is None or "literal" not in check.groupindex:
        return found is not None
    found = found.group("literal")
    return found is None or found.startswith("v") or is_ipv6(found)


cdef bint is_pattern(SchemaRun run, str value) except -1:
    try:
        compile_text_pattern(value, &run.left)
        return True
    except _ExpressionError:
        spend(run, 1)
        return False


def is_date(str text not None):
    return len(text) == 10 and is_date_time(text + "T00:00:00Z")


def is_date_time_text(str text not None):
    return is_date_time(text)


def is_time(str text not None):
    return is_date_time("2000-01-01T" + text)


def is_ipv4(str text not None):
    try:
        _IPv4Address(text)
    except ValueError:
        return False
    return text.isascii()


def is_ipv6(str text not None):
    try:
        _IPv6Address(text)
    except ValueError:
        return False
    return text.isascii() and "%" not in text


def is_pointer(str text not None):
    return is_json_pointer(text)


def is_relative_pointer(str text not None):
    found = RELATIVE_PATTERN.match(text)
    return found is not None and (found.group(1) is None or is_json_pointer(found.group(1)))


def is_hostname(str text not None):
    """RFC 1123; labels that say they are Unicode must be so."""
    return text.isascii() and is_idn_hostname(text)


def is_idn_hostname(str text not None):
    """IDNA 2008, but for the tables of characters it excludes one by one."""
    cdef str label
    if len(text) > 253:
        return False
    for label in text.replace("\u3002", ".").replace("\uff0e", ".").replace("\uff61", ".").split("."):
        if label[:4].lower() == "xn--":
            try:
                label = label[4:].encode("ascii").decode("punycode")
            except (UnicodeError, ValueError, OverflowError):
                return False
            if label.isascii() or not is_unicode_label(label):
                return False
        elif label.isascii():
            if LABEL_PATTERN.match(label) is None or label[2:4] == "--":
                return False
        elif not is_unicode_label(label):
            return False
    return True


cdef bint is_unicode_label(str label):
    cdef str category
    cdef Py_ssize_t at
    if label[0] == "-" or label[len(label) - 1] == "-" or label[2:4] == "--":
        return False
    if len(label.encode("punycode")) > 59 or _unicodedata.category(label[0])[0] == "M":
        return False
    if _unicodedata.normalize("NFC", label) != label:
        return False
    for at in range(len(label)):
        category = _unicodedata.category(label[at])
        if label[at] in LABEL_EXCEPTIONS:
            if not is_in_context(label, at):
                return False
        elif label[at] in LABEL_REFUSED or not (label[at] == "-" or category in ("Ll", "Lo", "Lm", "Mn", "Mc", "Nd")):
            return False
    return True


cdef bint is_in_context(str label, Py_ssize_t at):
    """RFC 5892, appendix A: characters that stand only beside others."""
    cdef str before = label[at - 1] if at else ""
    cdef str after = label[at + 1 : at + 2]
    cdef str name = label[at]
    if name == "\u00b7":
        return before == "l" and after == "l"
    if name == "\u0375":
        return bool(after) and _unicodedata.name(after, "").startswith("GREEK")
    if name in "\u05f3\u05f4":
        return bool(before) and _unicodedata.name(before, "").startswith("HEBREW")
    if name == "\u30fb":
        for other in label:
            if _unicodedata.name(other, "").partition(" ")[0] in ("HIRAGANA", "KATAKANA", "CJK") and other != name:
                return True
        return False
    if name in "\u200c\u200d":
        return bool(before) and _unicodedata.combining(before) == 9
    return True


def is_email(str text not None):
    return text.isascii() and is_idn_email(text)


def is_idn_email(str text not None):
    """RFC 5321, with RFC 6531 for characters beyond ASCII."""
    cdef str local, domain
    local, at, domain = text.rpartition("@")
    if not at or not 0 < len(local) <= 64:
        return False
    # Characters beyond ASCII count as letters.
    plain = "".join([c if c.isascii() else "a" for c in local])
    if LOCAL_PATTERN.match(plain) is None and QUOTED_PATTERN.match(plain) is None:
        return False
    if domain.startswith("[") and domain.endswith("]"):
        domain = domain[1 : len(domain) - 1]
        return is_ipv6(domain[5:]) if domain.lower().startswith("ipv6:") else is_ipv4(domain)
    return is_idn_hostname(domain)


# Format -> the first draft that asserts it, its check.
cdef dict ASSERTED_FORMATS = {
    "date": (4, is_date), "date-time": (4, is_date_time_text), "time": (4, is_time), "email": (4, is_email),
    "idn-email": (4, is_idn_email), "hostname": (4, is_hostname), "ipv4": (4, is_ipv4), "ipv6": (4, is_ipv6),
    "uri": (4, uri_pattern("", False)), "uri-reference": (6, uri_pattern("", True)),
    "uri-template": (6, TEMPLATE_PATTERN), "json-pointer": (6, is_pointer),
    "iri": (7, uri_pattern(BEYOND_ASCII, False)), "iri-reference": (7, uri_pattern(BEYOND_ASCII, True)),
    "idn-hostname": (7, is_idn_hostname), "relative-json-pointer": (7, is_relative_pointer), "regex": (4, None),
}


# --- pointers and times, which documents have too ---

cdef bint is_json_pointer(str text) noexcept:
    """RFC 6901: empty, or segments that each start with '/'; '~' only as ~0 and ~1."""
    cdef Py_ssize_t at, size = len(text)
    if size == 0:
        return True
    if text[0] != u"/":
        return False
    for at in range(size):
        if text[at] == u"~" and (at + 1 == size or text[at + 1] not in u"01"):
            return False
    return True


cdef int two_digits(str text, Py_ssize_t at) noexcept:
    """The number of two digits at `at`; or -1."""
    if at + 2 > len(text) or digits_end(text, at, at + 2) != at + 2:
        return -1
    return (<int>text[at] - 48) * 10 + <int>text[at + 1] - 48


cdef int days_of_month(int year, int month) noexcept:
    if month == 2:
        return 29 if (year % 4 == 0 and year % 100 != 0) or year % 400 == 0 else 28
    return 30 if month in (4, 6, 9, 11) else 31


cdef bint is_date_time(str text) noexcept:
    """RFC 3339 with its leap-second rule: 60 only where the clock in UTC shows 23:59."""
    cdef Py_ssize_t size = len(text), at = 19
    cdef int month, day, hour, minute, second, offset_hours = 0, offset_minutes = 0
    if size < 20 or text[4] != u"-" or text[7] != u"-" or text[13] != u":" or text[16] != u":":
        return False
    if text[10] != u"T" and text[10] != u"t":
        return False
    month = two_digits(text, 5)
    day = two_digits(text, 8)
    hour = two_digits(text, 11)
    minute = two_digits(text, 14)
    second = two_digits(text, 17)
    if digits_end(text, 0, 4) != 4 or not 1 <= month <= 12 or hour > 23 or minute > 59 or second > 60:
        return False
    if not 1 <= day <= days_of_month(two_digits(text, 0) * 100 + two_digits(text, 2), month):
        return False
    if hour < 0 or minute < 0 or second < 0:
        return False
    if text[at] == u".":
        at = digits_end(text, 20, size)
        if at == 20:
            return False
    if at + 1 == size and text[at] in u"zZ":
        return second < 60 or (hour == 23 and minute == 59)
    if at + 6 != size or text[at] not in u"+-" or text[at + 3] != u":":
        return False
    offset_hours = two_digits(text, at + 1)
    offset_minutes = two_digits(text, at + 4)
    if not 0 <= offset_hours <= 23 or not 0 <= offset_minutes <= 59:
        return False
    if second < 60:
        return True
    minute = hour * 60 + minute - (offset_hours * 60 + offset_minutes) * (1 if text[at] == u"+" else -1)
    return (minute + 2880) % 1440 == 1439
