"""Stage 2, compile: what a document needs from elsewhere: texts that constant URLs name.

Rules: the core fetches nothing. It tells what is needed, and compiles with the texts it is given (see linking.pxi). A
URL is constant: it is read before anything runs. What it holds to prove who asks is refused, because URLs are shown.
"""

import re as _re
from urllib.parse import quote as _quote, urlsplit as _urlsplit

from fastrunner.base.limits import (
    RESOURCE_URL_SIZE_CHARS_MAX as _RESOURCE_URL_SIZE_CHARS_MAX,
    RESOURCES_PER_DOCUMENT_MAX as _RESOURCES_PER_DOCUMENT_MAX,
)

cimport cython

from cpython.ref cimport PyObject

cdef Py_ssize_t RESOURCE_URL_SIZE_CHARS_MAX = _RESOURCE_URL_SIZE_CHARS_MAX
cdef Py_ssize_t RESOURCES_PER_DOCUMENT_MAX = _RESOURCES_PER_DOCUMENT_MAX
cdef object CONSTANT_URL = _re.compile(r"(?:https?|file)://[!$%&'()*+,\-./0-9:;=?@A-Z\[\]_a-z~]+")


@cython.final
cdef class ExternalResource:
    """A text that a document needs; `_core.pyi` has the contract."""

    cdef readonly str kind, reference, url, pointer
    cdef readonly object authentication
    cdef readonly Py_ssize_t line, column

    def __init__(self, *args, **kwargs):
        raise TypeError("external resources come from ResourcesMissing")

    def __repr__(self):
        return f"ExternalResource({self.kind!r}, {self.url!r})"


class ResourcesMissing(Exception):
    """A document needs texts from elsewhere that were not given."""

    def __init__(self, resources):
        self.resources = tuple(resources)
        super().__init__(f"{len(self.resources)} texts are needed from elsewhere, the first from "
                         f"{self.resources[0].url}")


cdef tuple url_fault(str url):
    """Code and message of what is wrong with a constant URL; None if nothing is."""
    cdef object parts
    if len(url) > RESOURCE_URL_SIZE_CHARS_MAX:
        return "unresolved-resource", f"a URL has at most {RESOURCE_URL_SIZE_CHARS_MAX} characters"
    if CONSTANT_URL.fullmatch(url) is None:
        return ("unresolved-resource", "expected an https, http or file URL as it is requested: what is called is "
                                       "fetched before anything runs, so it has no expressions, no {name} and no "
                                       "fragment")
    try:
        parts = _urlsplit(url)
        if parts.scheme == "file" or (parts.hostname and parts.port != 0 and "@" not in parts.netloc):
            return None
    except ValueError:
        pass
    return ("unresolved-resource", "expected a host, and perhaps a port, after `://`; what proves who asks stands in "
                                   "the `authentication` of a catalog's endpoint")


cdef int need_function(Checker checker, str reference, str url, object authentication, Path* path) except -1:
    """Notes that a call needs a function from elsewhere, once for all calls of it."""
    cdef ExternalResource resource
    cdef tuple fault
    if checker.resources is not None and reference in checker.resources:
        return 0
    fault = url_fault(url)
    if fault is not None:
        return checker.problem(fault[0], path, False, fault[1])
    if checker.resources is None:
        checker.resources = {}
    if len(checker.resources) == RESOURCES_PER_DOCUMENT_MAX:
        return checker.problem("too-many-resources", path, False,
                               f"a document needs at most {RESOURCES_PER_DOCUMENT_MAX} texts from elsewhere: put "
                               "functions that belong together into use.functions")
    resource = ExternalResource.__new__(ExternalResource)
    resource.kind, resource.reference, resource.url = "function", reference, url
    resource.authentication = authentication
    resource.pointer = pointer_of(path)
    checker.resources[reference] = resource
    return 0


cdef int need_of_catalog(Checker checker, str reference, str name, str version, str catalog, Path* path) except -1:
    """Notes that a call needs a function of a catalog of `use`."""
    cdef object catalogs = checker.use.get("catalogs", ())
    cdef object endpoint, root, authentication
    if catalog not in catalogs and catalog == "default":
        return checker.problem("unresolved-resource", path, False,
                               "this runner provides no default catalog: say in use.catalogs.default where it is")
    if catalog not in catalogs:
        return checker.problem("unknown-reference", path, False,
                               f"use.catalogs has no {shown(catalog)}{checker.suggestion(catalog, catalogs)}")
    endpoint = catalogs[catalog].get("endpoint") if type(catalogs[catalog]) is dict else None
    root = endpoint.get("uri") if type(endpoint) is dict else endpoint
    if type(root) is not str:
        # The shape of the catalog says so.
        return 0
    authentication = endpoint.get("authentication") if type(endpoint) is dict else None
    if type(authentication) is dict and type(authentication.get("use")) is str:
        authentication = checker.use.get("authentications", {}).get(authentication["use"])
    if has_expression(authentication):
        return checker.problem("unsupported", path, False,
                               f"the authentication of catalog {shown(catalog)} has an expression, but a catalog is "
                               "read before anything runs: write the text itself, or take it from a secret with `use`")
    url = f"{root.rstrip('/')}/functions/{_quote(name, safe='')}/{_quote(version, safe='')}/function.yaml"
    return need_function(checker, reference, url, authentication, path)


cdef bint has_expression(object value) except -1:
    if type(value) is str:
        return "${" in <str>value
    if type(value) is dict or type(value) is list:
        for part in (value.values() if type(value) is dict else value):
            if has_expression(part):
                return True
    return False


cdef int doubt_resources(Checker checker) except -1:
    """Warns of what validation alone cannot see."""
    cdef ExternalResource resource
    cdef Path path
    path.parent = NULL
    path.index = PATH_POINTER
    for resource in (checker.resources or {}).values():
        path.key = <PyObject*>resource.pointer
        doubt(checker, "not-fetched", &path,
              "validation fetches nothing: whether there is a function at this URL, and what it is, is seen when the "
              "document is submitted")
    return 0
