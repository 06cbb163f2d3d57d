"""Stage 2, compile: where the schemas of a document are, what they are called, and what a reference leads to.

Rules: nothing is fetched. A reference leads to a place in the document, by pointer, by name or by the URI a part gives
itself, or into a meta-schema; any other is refused. Pointers may lead anywhere, to what is a schema only because of it.
"""

from fastrunner.base.limits import SCHEMA_MESSAGE_SIZE_MAX
cimport cython
from urllib.parse import unquote as _unquote, urljoin as _urljoin


@cython.internal
@cython.final
cdef class SchemaResource:
    """A part of a document with a URI of its own."""

    cdef str uri
    cdef int draft
    cdef SchemaPlace root
    cdef dict anchors
    cdef dict dynamic_places
    """Dynamic anchor -> place; "": the root of a recursive resource of 2019-09."""
    cdef dict names
    """Dynamic anchor -> rule, as the rules see it."""


@cython.internal
@cython.final
cdef class SchemaPlace:
    """A schema in a document."""

    cdef object value
    cdef str pointer
    cdef SchemaResource resource
    cdef SchemaSource source
    cdef SchemaRule rule


@cython.internal
@cython.final
cdef class SchemaSource:
    """A document: its schemas by pointer, its resources by URI."""

    cdef object value
    cdef dict places
    cdef dict resources
    cdef list dynamic
    """Resources with dynamic anchors."""
    cdef SchemaCompiler compiler


cdef SchemaSource read_source(SchemaCompiler compiler, object document, str uri, int draft):
    """Finds the schemas of a document."""
    cdef SchemaSource source = SchemaSource.__new__(SchemaSource)
    cdef SchemaResource outside = SchemaResource.__new__(SchemaResource)
    source.value = document
    source.places = {}
    source.resources = {}
    source.dynamic = []
    source.compiler = compiler
    outside.uri = uri
    outside.draft = draft
    outside.anchors = {}
    outside.dynamic_places = {}
    outside.root = scan(source, document, "", outside)
    source.resources[uri] = outside.root.resource
    return source


cdef SchemaPlace scan(SchemaSource source, object value, str pointer, SchemaResource resource):
    """Notes a schema and those in it. Recurses over the document, whose depth is bounded."""
    cdef SchemaPlace place = SchemaPlace.__new__(SchemaPlace)
    cdef int holds
    source.compiler.spend(20)
    place.value, place.pointer, place.resource, place.source = value, pointer, resource, source
    source.places[pointer] = place
    if type(value) is not dict:
        return place
    if resource.draft >= 2019 or "$ref" not in value:
        name_place(place, <dict> value)
    for keyword, held in (<dict> value).items():
        source.compiler.spend(1)
        holds = holding(keyword, place.resource.draft) if type(keyword) is str else 0
        if holds:
            scan_held(place, held, f"{pointer}/{escape_pointer(keyword)}", holds)
    return place


cdef int scan_held(SchemaPlace place, object held, str pointer, int holds) except -1:
    cdef Py_ssize_t index
    cdef int draft = place.resource.draft
    if holds & HOLDS_ONE and is_schema(held, draft) or (type(held) is bool and holds & HOLDS_ONE):
        scan(place.source, held, pointer, place.resource)
    elif holds & HOLDS_LIST and type(held) is list:
        for index in range(len(<list> held)):
            if is_schema((<list> held)[index], draft):
                scan(place.source, (<list> held)[index], f"{pointer}/{index}", place.resource)
    elif holds & HOLDS_NAMED and type(held) is dict:
        for name, schema in (<dict> held).items():
            if is_schema(schema, draft):
                scan(place.source, schema, f"{pointer}/{escape_pointer(name)}", place.resource)
    return 0


cdef int name_place(SchemaPlace place, dict value) except -1:
    """Gives a place the names its schema claims: a URI, anchors."""
    cdef int draft = place.resource.draft
    cdef object uri = value.get("id" if draft == 4 else "$id")
    if type(uri) is str:
        if draft < 2019 and uri.startswith("#"):
            place.resource.anchors[uri[1:]] = place
        else:
            begin_resource(place, uri.partition("#")[0], value)
    draft = place.resource.draft
    if draft < 2019:
        return 0
    if place.resource.root is None:
        place.resource.root = place
    if type(value.get("$anchor")) is str:
        place.resource.anchors[value["$anchor"]] = place
    if draft == 2020 and type(value.get("$dynamicAnchor")) is str:
        place.resource.anchors[value["$dynamicAnchor"]] = place
        add_dynamic(place, value["$dynamicAnchor"])
    if draft == 2019 and value.get("$recursiveAnchor") is True and place.resource.root is place:
        add_dynamic(place, "")
    return 0


cdef int add_dynamic(SchemaPlace place, str name) except -1:
    if not place.resource.dynamic_places:
        place.source.dynamic.append(place.resource)
        place.resource.names = {}
    place.resource.dynamic_places[name] = place
    return 0


cdef int begin_resource(SchemaPlace place, str uri, dict value) except -1:
    cdef SchemaResource resource = SchemaResource.__new__(SchemaResource)
    cdef SchemaResource around = place.resource
    cdef object draft = value.get("$schema")
    place.source.compiler.spend(50)
    resource.uri = joined_uri(place.pointer, around.uri, uri)
    draft = DRAFTS.get(draft.removesuffix("#")) if type(draft) is str else None
    resource.draft = around.draft if draft is None else draft
    resource.anchors = {}
    resource.dynamic_places = {}
    resource.root = place
    place.resource = resource
    place.source.resources[resource.uri] = resource
    if resource.draft != around.draft:
        place.source.compiler.check(value, resource.draft, place.pointer)
    return 0


cdef str joined_uri(str pointer, str base, str uri):
    try:
        return _urljoin(base, uri) if uri else base
    except ValueError as error:
        raise InvalidSchema(pointer, f"not a URI: {shown_json(uri, SCHEMA_MESSAGE_SIZE_MAX)} ({error})") from None


# --- references ---

cdef SchemaPlace resolved(SchemaPlace place, str keyword, str reference):
    """The place a reference leads to."""
    cdef str pointer = f"{place.pointer}/{keyword}"
    cdef str uri, fragment
    cdef SchemaResource resource
    cdef SchemaPlace found
    place.source.compiler.spend(30 + len(reference))
    uri, _, fragment = reference.partition("#")
    uri = joined_uri(pointer, place.resource.uri, uri)
    resource = place.source.resources.get(uri)
    if resource is None:
        resource = meta_resource(uri)
    if resource is None:
        raise InvalidSchema(pointer, f"{shown_json(uri, SCHEMA_MESSAGE_SIZE_MAX)} is outside of the schema, and "
                            "nothing is fetched")
    fragment = _unquote(fragment)
    if not fragment:
        return resource.root
    if fragment.startswith("/"):
        return pointed_at(resource, pointer, fragment)
    found = resource.anchors.get(fragment)
    if found is None:
        raise InvalidSchema(pointer, f"Anchor {shown_json(fragment, SCHEMA_MESSAGE_SIZE_MAX)} does not exist")
    return found


cdef SchemaPlace pointed_at(SchemaResource resource, str pointer, str fragment):
    """The place at a pointer within a resource; `pointer` is where the reference stands."""
    cdef SchemaSource source = resource.root.source
    cdef SchemaPlace found = source.places.get(resource.root.pointer + fragment)
    cdef object value
    cdef str at
    if found is not None:
        return found
    value, at = resource.root.value, resource.root.pointer
    for part in fragment[1:].split("/"):
        source.compiler.spend(5)
        part = part.replace("~1", "/").replace("~0", "~")
        if type(value) is dict and part in value:
            value = value[part]
        elif type(value) is list and part.isascii() and part.isdecimal() and len(part) < 7 and int(part) < len(value):
            value = value[int(part)]
            part = str(int(part))
        else:
            raise InvalidSchema(pointer, f"Pointer {shown_json(fragment, SCHEMA_MESSAGE_SIZE_MAX)} does not exist")
        at = f"{at}/{escape_pointer(part)}"
        found = source.places.get(at)
        if found is not None:
            resource = found.resource
    if found is not None and found.pointer == at:
        return found
    if not is_schema(value, resource.draft) or source.compiler.is_meta:
        raise InvalidSchema(pointer, f"at {shown_json(fragment, SCHEMA_MESSAGE_SIZE_MAX)} is no schema")
    source.compiler.check(value, resource.draft, at)
    return scan(source, value, at, resource)
