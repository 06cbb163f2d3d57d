"""Stage 2, compile: what a document needs from elsewhere: texts that constant URLs name.

Theory of operation: a text is known by a reference, which follows from the documents alone: a URL; the name that a
catalog has for a function; or, within a catalog, the way from its root. So the texts that are stored with an execution
are found again whatever the runner's settings have become. One that is read with a policy has that in its reference:
what one policy was given is given to no other.

Rules: the core fetches nothing. It tells what is needed, and compiles with the texts it is given (see linking.pxi). A
URL is constant: it is read before anything runs. What it holds to prove who asks is refused, because URLs are shown. A
relative reference starts from the text that it stands in; a workflow itself stands nowhere.
"""

import re as _re
import orjson as _orjson
from hashlib import sha256 as _sha256
from urllib.parse import quote as _quote, urljoin as _urljoin, urlsplit as _urlsplit

from fastrunner.base.limits import (
    DESCRIPTIONS_PER_DOCUMENT_MAX as _DESCRIPTIONS_PER_DOCUMENT_MAX,
    RESOURCE_URL_SIZE_CHARS_MAX as _RESOURCE_URL_SIZE_CHARS_MAX,
    RESOURCES_PER_DOCUMENT_MAX as _RESOURCES_PER_DOCUMENT_MAX,
)

cimport cython

from cpython.ref cimport PyObject

cdef Py_ssize_t RESOURCE_URL_SIZE_CHARS_MAX = _RESOURCE_URL_SIZE_CHARS_MAX
cdef Py_ssize_t RESOURCES_PER_DOCUMENT_MAX = _RESOURCES_PER_DOCUMENT_MAX
cdef Py_ssize_t DESCRIPTIONS_PER_DOCUMENT_MAX = _DESCRIPTIONS_PER_DOCUMENT_MAX
cdef object CONSTANT_URL = _re.compile(r"(?:https?|file)://[!$%&'()*+,\-./0-9:;=?@A-Z\[\]_a-z~]+")


# What stands for the root of a catalog where ways from it are worked out.
cdef str CATALOG_ROOT = "http://catalog"


@cython.internal
@cython.final
cdef class Catalog:
    """Where functions lie by name and version."""

    cdef str name
    """None: the runner's own."""
    cdef str root
    """Its URL without a slash at the end; None where the runner has none any more."""
    cdef object authentication


@cython.final
cdef class ExternalResource:
    """A text that a document needs; `_core.pyi` has the contract."""

    cdef readonly str kind, reference, url, pointer
    cdef readonly object authentication
    cdef readonly Py_ssize_t line, column
    cdef Catalog catalog
    """The one that it is a part of, if it is of any."""
    cdef str way
    """From the root of that."""

    def __init__(self, *args, **kwargs):
        raise TypeError("external resources come from ResourcesMissing")

    @property
    def location_reference(self):
        return f"{self.reference} leads to"

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


# --- where things are ---

cdef ExternalResource located(ExternalResource origin, str kind, str text, object authentication):
    """What a URL, or a relative reference, names in the text that has come from `origin`; None: in a workflow. Nothing
    is checked; without a `url` it leads nowhere."""
    cdef ExternalResource found = ExternalResource.__new__(ExternalResource)
    found.kind, found.url, found.authentication = kind, text, authentication
    if "://" not in text and origin is not None:
        if origin.catalog is not None:
            return within_catalog(found, origin.catalog, joined(CATALOG_ROOT + origin.way, text))
        found.url = joined(origin.url, text)
    found.reference = found.url + mark_of(authentication)
    return found


cdef ExternalResource within_catalog(ExternalResource found, Catalog catalog, str url):
    """What lies at the end of a way within a catalog."""
    cdef bint is_within = url.startswith(CATALOG_ROOT + "/")
    found.catalog = catalog
    found.way = url[len(CATALOG_ROOT):] if is_within else "/"
    found.url = "" if catalog.root is None or not is_within else catalog.root + found.way
    # The runner's own has no name that a document could give to another one.
    found.reference = f"default:{found.way}" if catalog.name is None else f"{found.way}@{catalog.name}"
    found.reference += mark_of(found.authentication)
    if found.authentication is None:
        found.authentication = catalog.authentication
    return found


cdef str joined(str base, str text):
    try:
        # The authority is nobody's to change: `//host` would.
        return "" if text.startswith("//") else _urljoin(base, text)
    except ValueError:
        return ""


cdef str mark_of(object authentication):
    """What tells references with different policies apart."""
    if type(authentication) is not dict:
        return ""
    try:
        told = _orjson.dumps(authentication, option=_orjson.OPT_SORT_KEYS)
    except TypeError:
        # Shapes say what is wrong with it.
        return ""
    return f" ({_sha256(told).hexdigest()[:16]})"


cdef Catalog catalog_of(Document document, dict use, str name):
    """A catalog by its name; None if there is none, or if shapes say what is wrong with it."""
    cdef Catalog catalog = Catalog.__new__(Catalog)
    cdef object catalogs = use.get("catalogs", ())
    cdef object endpoint, root
    if name not in catalogs:
        catalog.root = document.default_catalog
        return catalog if name == "default" else None
    endpoint = catalogs[name].get("endpoint") if type(catalogs[name]) is dict else None
    root = endpoint.get("uri") if type(endpoint) is dict else endpoint
    if type(root) is not str:
        return None
    catalog.name, catalog.root = name, (<str>root).rstrip("/")
    catalog.authentication = policy_of(use, endpoint)
    return catalog


cdef object policy_of(dict use, object endpoint):
    """The policy of an endpoint, a name of `use` replaced by what it stands for; None if it has none."""
    cdef object policy = endpoint.get("authentication") if type(endpoint) is dict else None
    if type(policy) is dict and type(policy.get("use")) is str:
        policy = use.get("authentications", {}).get(policy["use"])
    return policy


cdef ExternalResource of_catalog(ExternalResource origin, Catalog catalog, str called):
    """The function that a call names as one of a catalog."""
    cdef ExternalResource found = ExternalResource.__new__(ExternalResource)
    cdef str name, version
    name, _, version = called.partition(":")
    version = version.partition("@")[0]
    found.kind = "function"
    within_catalog(found, catalog,
                   f"{CATALOG_ROOT}/functions/{_quote(name, safe='')}/{_quote(version, safe='')}/function.yaml")
    # For a workflow it has the name that it is called by.
    if origin is None:
        found.reference = called
    return found


cdef ExternalResource function_of(Document document, dict use, ExternalResource origin, str called):
    """The function from elsewhere that a call names; None if it names none."""
    cdef str name, version, catalog_name
    cdef Catalog catalog
    if called in CALLS or (origin is None and called in use.get("functions", ())):
        return None
    if "://" in called:
        return located(origin, "function", called, None)
    name, _, version = called.partition(":")
    version, _, catalog_name = version.partition("@")
    if name and is_semver(version) and catalog_name:
        catalog = catalog_of(document, use, catalog_name)
        return None if catalog is None else of_catalog(origin, catalog, called)
    if origin is not None and ("/" in called or called.endswith((".yaml", ".yml", ".json"))):
        return located(origin, "function", called, None)
    return None


cdef str called_name(Document document, ExternalResource origin, str called):
    """What `Document.functions` knows the function by that a checked call names."""
    cdef ExternalResource found = function_of(document, document.use if origin is None else {}, origin, called)
    return called if found is None else found.reference


cdef ExternalResource resource_of(dict use, ExternalResource origin, str kind, dict resource):
    """What an external resource names; None if shapes say what is wrong with it."""
    cdef object endpoint = resource.get("endpoint")
    cdef object text = endpoint.get("uri") if type(endpoint) is dict else endpoint
    return located(origin, kind, text, policy_of(use, endpoint)) if type(text) is str else None


cdef str located_uri(ExternalResource origin, str text):
    """A URI as it is asked for: a relative reference, which has a meaning in texts from elsewhere alone, completed."""
    if origin is None or "://" in text or "{" in text:
        return text
    return located(origin, "script", text, None).url


cdef ExternalResource description_of(dict use, ExternalResource origin, dict resource):
    """What describes the service that a call is of, if it can be read before anything runs; else None."""
    cdef ExternalResource found
    if has_expression(resource):
        return None
    found = resource_of(use, origin, "description", resource)
    if found is None or url_fault(found.url) is not None or has_expression(found.authentication):
        return None
    return found


# --- what is needed ---

cdef int need(Checker checker, ExternalResource resource, Path* path) except -1:
    """Notes that a document needs something from elsewhere, once for all places that do."""
    cdef Document document = checker.document
    cdef tuple key = (resource.kind, resource.reference)
    cdef tuple fault
    if checker.resources is not None and key in checker.resources:
        return 0
    if document.given is None or resource.reference not in document.given:
        if resource.catalog is not None and resource.catalog.root is None:
            return checker.problem("unresolved-resource", path, False,
                                   "this runner provides no default catalog: say in use.catalogs.default where it is, "
                                   "or set FASTRUNNER_DEFAULT_CATALOG")
        fault = url_fault(resource.url)
        if fault is not None:
            return checker.problem(fault[0], path, False, fault[1])
        if has_expression(resource.authentication):
            return checker.problem("unsupported", path, False,
                                   "its authentication has an expression, but this is read before anything runs: "
                                   "write the text itself, or take it from a secret with `use`")
    if checker.resources is None:
        checker.resources = {}
    if len(checker.resources) == RESOURCES_PER_DOCUMENT_MAX:
        return checker.problem("too-many-resources", path, False,
                               f"a document needs at most {RESOURCES_PER_DOCUMENT_MAX} texts from elsewhere: put "
                               "functions that belong together into use.functions")
    resource.pointer = pointer_of(path)
    checker.resources[key] = resource
    return 0


cdef int need_schema(Checker checker, dict section, Path* path) except -1:
    """The schema that a `schema.resource` names."""
    cdef object value = section.get("resource")
    cdef ExternalResource resource
    cdef Path inner, endpoint
    if type(value) is not dict:
        return 0
    resource = resource_of(checker.use, checker.document.origin, "schema", value)
    if resource is None:
        return 0
    inner.parent, inner.key, inner.index = path, <PyObject*>RESOURCE_KEY, 0
    endpoint.parent, endpoint.key, endpoint.index = &inner, <PyObject*>ENDPOINT_KEY, 0
    return need(checker, resource, &endpoint)


cdef int need_description(Checker checker, dict value, Path* path) except -1:
    """The description that a call names. Nobody is refused for want of it: the call can ask for it, too."""
    cdef ExternalResource resource
    if checker.position is not AT_CALL_ENDPOINT:
        return 0
    resource = description_of(checker.use, checker.document.origin, value)
    if resource is None:
        return 0
    if checker.described is None:
        checker.described = {}
    resource.pointer = pointer_of(path)
    checker.described.setdefault(resource.reference, resource)
    return 0


cdef str RESOURCE_KEY = "resource"
cdef str ENDPOINT_KEY = "endpoint"


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
        where = "at this URL"
        if resource.catalog is not None and resource.catalog.name is None:
            where = "in the runner's default catalog (FASTRUNNER_DEFAULT_CATALOG)"
        doubt(checker, "not-fetched", &path,
              f"validation fetches nothing: whether there is a {resource.kind} {where}, and what it is, is seen when "
              "the document is submitted")
    return 0
