"""Stages 4 and 5: the secrets of an execution: what `$secrets` is, and the errors that must not show it.

Rules: of what a driver gives, only names in `use.secrets` are seen. A name that is asked for and not there is an
authorization error that nothing in the expression catches. What an expression says of its failure quotes values, so of
one that reads secrets nothing is said; what errors say beside that is searched for the values, those of env_vars of
such a name included.
"""

from fastrunner.base.limits import SECRET_DEPTH_MAX as _SECRET_DEPTH_MAX
from fastrunner.base.limits import SECRET_HIDDEN_SIZE_CHARS_MIN as _SECRET_HIDDEN_SIZE_CHARS_MIN

cdef Py_ssize_t SECRET_DEPTH_MAX = _SECRET_DEPTH_MAX
cdef Py_ssize_t SECRET_HIDDEN_SIZE_CHARS_MIN = _SECRET_HIDDEN_SIZE_CHARS_MIN
# Nobody modifies it.
cdef dict NO_SECRETS = {}
cdef str HIDDEN = "***"
cdef str UNSAID = "the expression failed; it reads secrets, so nothing is said of its values"


cdef dict known_secrets(Plan plan, object secrets):
    """Those that a document names, of all that are given."""
    if not plan.secrets:
        return NO_SECRETS
    return {name: secrets[name] for name in plan.secrets if secrets is not None and name in secrets}


cdef tuple declared_secrets(dict use):
    return tuple(dict.fromkeys(use.get("secrets") or ()))


cdef str secret_fault(Place at, str name):
    """Why an execution does not have a secret."""
    if name in declared_secrets(at.facts.document.get("use") or {}):
        return f"the runner has no secret {shown(name)}, or may not read it"
    return f"use.secrets does not name {shown(name)}, so this document may not read it"


cdef object secret_of(Place at, str name):
    """One secret, by name. Raises WalkFault."""
    if name not in <dict> at.secrets:
        raise fault_here(at, "authorization", secret_fault(at, name))
    return (<dict> at.secrets)[name]


cdef bint reads_secrets(Expression expression) noexcept:
    cdef unsigned char code
    for code in expression.sources:
        if code == ARGUMENT_SECRETS or code == ARGUMENT_AUTHORIZATION:
            return True
    return False


cdef tuple hidden_texts(object value):
    """The texts in secrets that errors must not show, the longest first."""
    cdef set texts = set()
    collect_texts(value, texts, 0)
    return tuple(sorted(texts, key=text_order))


def text_order(str text):
    return -len(text), text


cdef int collect_texts(object value, set texts, int depth) except -1:
    if isinstance(value, str):
        if len(value) >= SECRET_HIDDEN_SIZE_CHARS_MIN:
            texts.add(value)
    elif isinstance(value, (dict, list)) and depth < SECRET_DEPTH_MAX:
        for part in (value.values() if isinstance(value, dict) else value):
            collect_texts(part, texts, depth + 1)
    return 0
