"""Stage 2, compile: a JSON Schema becomes rules.

Rules: a schema is checked against the meta-schema of its draft first, so that what follows meets only what it expects.
A subschema becomes one rule, made when something leads to it, and references join rules to one another. Compiling takes
steps, which are bounded; what it costs does not depend on what was compiled before.
"""

from fastrunner.base.limits import SCHEMA_MESSAGE_SIZE_MAX
cimport cython
from fastrunner._jq cimport Bounds
from fastrunner._jq cimport TextPattern
import orjson as _orjson

from fastrunner._jq import ExpressionError as _ExpressionError
from fastrunner._jq cimport compile_text_pattern, default_bounds

# Numbers below are those of the meta-schemas' rules.
cdef long long RULE_NUMBER_MIN = 4_096
# Lengths and counts beyond it mean as much as none.
cdef Py_ssize_t SCHEMA_COUNT_MAX = 1 << 60

cdef Bounds SCHEMA_PATTERN_BOUNDS = default_bounds()
# Draft -> its MetaSchema, once a schema needed it.
cdef dict META_KNOWN = {}
cdef list META_DRAFTS = list(META_URIS)
cdef long long META_RULES_MAX = RULE_NUMBER_MIN // len(META_URIS)


@cython.internal
@cython.final
cdef class SchemaCompiler:
    """Compiles one document; or, one draft after the other, the meta-schemas."""

    cdef bint is_meta
    cdef long long left
    cdef long long allowed
    cdef long long count
    cdef long long first
    cdef list waiting
    cdef dict same_value
    """Number of a rule -> the rules it applies to the same value."""
    cdef list dynamic_uses
    """Pairs: a place with a dynamic reference, the name it refers to."""
    cdef dict marked
    cdef bint has_unevaluated

    cdef int spend(self, long long steps) except -1:
        if not self.is_meta:
            self.left -= steps
            if self.left < 0:
                raise InvalidSchema("", f"compiling the schema takes more than {self.allowed} steps")
        return 0

    cdef int check(self, object value, int draft, str pointer) except -1:
        """Checks a schema against the meta-schema of its draft."""
        cdef SchemaTold told
        cdef SchemaRun run
        cdef SchemaRule root
        if self.is_meta:
            return 0
        root = meta_schema(draft).root
        run = new_run(RULE_NUMBER_MIN, &SCHEMA_PATTERN_BOUNDS, self.left)
        try:
            told = told_of(run, root, value)
        except SchemaUndecided as error:
            self.left = run.left if run.left > 0 else -1
            raise InvalidSchema(pointer, f"checking the schema takes too long: {error}") from None
        self.left = run.left
        if told is not None:
            raise InvalidSchema(pointer + told.messages[0][0], told.messages[0][1])
        return 0

    cdef SchemaRule compile(self, SchemaSource source):
        """Makes all rules that something leads to; gives the first."""
        cdef SchemaRule root = self.rule_of(source.places[""])
        cdef SchemaResource resource
        cdef SchemaPlace place
        for resource in source.dynamic:
            for name, place in resource.dynamic_places.items():
                resource.names[name] = self.rule_of(place)
                (<SchemaRule> resource.names[name]).uses += 1
        while self.waiting:
            place = self.waiting.pop()
            fill_rule(self, place)
        if not self.is_meta:
            mark_rules(self, source)
        return root

    cdef SchemaRule rule_of(self, SchemaPlace place):
        """The rule of a place, which may still have to be made."""
        cdef SchemaCompiler owner = place.source.compiler
        cdef SchemaRule rule = place.rule
        if rule is None:
            rule = place.rule = new_rule(owner.first + owner.count)
            owner.count += 1
            owner.waiting.append(place)
        if owner is self:
            rule.uses += 1
        return rule

    cdef SchemaRule held(self, SchemaPlace place, str path):
        """The rule of a schema that a place's schema holds."""
        return self.rule_of(place.source.places[place.pointer + path])

    cdef SchemaRule held_here(self, SchemaPlace place, str path):
        """The same, of one that applies to the same value."""
        return self.here(place, self.held(place, path))

    cdef SchemaRule here(self, SchemaPlace place, SchemaRule rule):
        self.same_value.setdefault(place.rule.number, []).append(rule)
        return rule

    cdef TextPattern pattern(self, str text, str pointer):
        try:
            return compile_text_pattern(text, &self.left)
        except _ExpressionError as error:
            if self.is_meta or self.left > 0:
                raise InvalidSchema(pointer, f'{shown_json(text, SCHEMA_MESSAGE_SIZE_MAX // 2)} is not a "regex": '
                                    f'{str(error).removeprefix("Regex failure: ")}') from None
            self.spend(1)


cdef SchemaCompiler new_compiler(long long first, long long steps):
    cdef SchemaCompiler compiler = SchemaCompiler.__new__(SchemaCompiler)
    compiler.first = first
    compiler.left = compiler.allowed = steps
    compiler.waiting = []
    compiler.same_value = {}
    compiler.dynamic_uses = []
    compiler.marked = {}
    return compiler


# --- meta-schemas ---

@cython.internal
@cython.final
cdef class MetaSchema:
    """The meta-schema of a draft, with the parts it consists of."""

    cdef SchemaRule root
    cdef dict resources


cdef MetaSchema meta_schema(int draft):
    cdef MetaSchema meta = META_KNOWN.get(draft)
    return make_meta(draft) if meta is None else meta


cdef MetaSchema make_meta(int draft):
    """All rules at once: what is known of a meta-schema never changes afterwards."""
    cdef MetaSchema meta = MetaSchema.__new__(MetaSchema)
    cdef SchemaCompiler compiler = new_compiler(META_RULES_MAX * META_DRAFTS.index(draft), 1 << 40)
    cdef SchemaSource source
    cdef list sources
    compiler.is_meta = True
    sources = [read_source(compiler, _orjson.loads(text), uri, draft)
               for uri, number, text in META_SCHEMAS if number == draft]
    meta.resources = {}
    for source in sources:
        meta.resources.update(source.resources)
        source.resources = meta.resources
    for source in sources:
        for place in source.places.values():
            compiler.rule_of(<SchemaPlace> place)
        compiler.compile(source)
    meta.root = (<SchemaResource> meta.resources[META_URIS[draft]]).root.rule
    META_KNOWN[draft] = meta
    return meta


cdef SchemaResource meta_resource(str uri):
    """A part of the meta-schemas; None for any other URI."""
    for known, draft, _ in META_SCHEMAS:
        if known == uri:
            return meta_schema(draft).resources[uri]
    return None


# --- rules ---

cdef int fill_rule(SchemaCompiler compiler, SchemaPlace place) except -1:
    """Works out what a schema asks."""
    cdef SchemaRule rule = place.rule
    cdef int draft = place.resource.draft
    cdef dict schema
    compiler.spend(50)
    # Schemas of any shape refer to those of meta-schemas.
    rule.is_shared = rule.is_special = compiler.is_meta
    if type(place.value) is not dict:
        rule.always = place.value is True
        return 0
    schema = <dict> place.value
    if place.resource.names is not None:
        rule.names = place.resource.names
    if draft < 2019 and "$ref" in schema:
        # All that stands beside it is ignored.
        rule.branches = SchemaBranches.__new__(SchemaBranches)
        fill_references(compiler, place, schema, rule.branches)
        return 0
    fill_values(compiler, rule, schema, draft)
    fill_numbers(rule, schema, draft)
    fill_texts(compiler, place, schema)
    fill_items(compiler, place, schema)
    fill_members(compiler, place, schema)
    fill_branches(compiler, place, schema)
    rule.asks_only_types = (
        rule.choices is None and rule.constant is None and rule.numbers is None and rule.texts is None
        and rule.items is None and rule.members is None and rule.branches is None
    )
    return 0


cdef int fill_values(SchemaCompiler compiler, SchemaRule rule, dict schema, int draft) except -1:
    cdef SchemaRun run
    cdef object types = schema.get("type")
    for name in types if type(types) is list else () if types is None else (types,):
        rule.types |= SCHEMA_TYPES[name]
    if draft == 4 and rule.types & T_WHOLE:
        rule.types ^= T_WHOLE | T_INTEGER
    if "enum" not in schema and ("const" not in schema or draft < 6):
        return 0
    run = new_run(0, &SCHEMA_PATTERN_BOUNDS, max(compiler.left, 0))
    try:
        if "enum" in schema:
            rule.shown_choices = tuple(schema["enum"])
            rule.choices = frozenset([equality_key(run, value) for value in rule.shown_choices])
            for value in rule.shown_choices:
                rule.chooses_containers = rule.chooses_containers or type(value) is dict or type(value) is list
        if "const" in schema and draft >= 6:
            rule.shown_constant = schema["const"]
            rule.constant = equality_key(run, rule.shown_constant)
    except SchemaUndecided:
        compiler.spend(compiler.left + 1)
    compiler.left = run.left
    return 0


cdef int fill_numbers(SchemaRule rule, dict schema, int draft) except -1:
    cdef SchemaNumbers numbers = SchemaNumbers.__new__(SchemaNumbers)
    numbers.low, numbers.high = schema.get("minimum"), schema.get("maximum")
    if draft == 4:
        if schema.get("exclusiveMinimum") is True:
            numbers.above, numbers.low = numbers.low, None
        if schema.get("exclusiveMaximum") is True:
            numbers.below, numbers.high = numbers.high, None
    else:
        numbers.above, numbers.below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    numbers.multiple = schema.get("multipleOf")
    if numbers.multiple is not None:
        numbers.multiple_above, numbers.multiple_below = fraction_of(numbers.multiple)
    for bound in (numbers.low, numbers.high, numbers.above, numbers.below, numbers.multiple):
        if bound is not None:
            rule.numbers = numbers
    return 0


cdef Py_ssize_t size_of(dict schema, str keyword, Py_ssize_t otherwise) except -2:
    """A length or a count; the meta-schema lets 2.0 stand for 2."""
    cdef object size = schema.get(keyword)
    return otherwise if size is None else int(min(size, SCHEMA_COUNT_MAX))


cdef int fill_texts(SchemaCompiler compiler, SchemaPlace place, dict schema) except -1:
    cdef SchemaTexts texts = SchemaTexts.__new__(SchemaTexts)
    texts.size_min = size_of(schema, "minLength", 0)
    texts.size_max = size_of(schema, "maxLength", -1)
    texts.pattern_text = schema.get("pattern")
    if texts.pattern_text is not None:
        texts.pattern = compiler.pattern(texts.pattern_text, place.pointer + "/pattern")
    if not compiler.is_meta and asserts_format(schema.get("format"), place.resource.draft):
        texts.format = schema["format"]
    if texts.size_min or texts.size_max >= 0 or texts.pattern is not None or texts.format is not None:
        place.rule.texts = texts
    return 0


cdef int fill_items(SchemaCompiler compiler, SchemaPlace place, dict schema) except -1:
    cdef SchemaItems items = SchemaItems.__new__(SchemaItems)
    cdef int draft = place.resource.draft
    cdef str first = "prefixItems" if draft >= 2020 else "items"
    items.size_min = size_of(schema, "minItems", 0)
    items.size_max = size_of(schema, "maxItems", -1)
    items.is_unique = schema.get("uniqueItems") is True
    if type(schema.get(first)) is list:
        items.first = tuple([compiler.held(place, f"/{first}/{index}") for index in range(len(schema[first]))])
    if "items" in schema and type(schema["items"]) is not list:
        items.rest = compiler.held(place, "/items")
    elif draft < 2020 and items.first is not None and "additionalItems" in schema:
        items.rest = compiler.held(place, "/additionalItems")
        items.rest_is_additional = True
    if draft >= 6 and "contains" in schema:
        items.contained = compiler.held(place, "/contains")
        items.contained_min = size_of(schema, "minContains", 1) if draft >= 2019 else 1
        items.contained_max = size_of(schema, "maxContains", -1) if draft >= 2019 else -1
        items.contained_are_evaluated = draft >= 2020
    if draft >= 2019 and "unevaluatedItems" in schema:
        items.unevaluated = compiler.held(place, "/unevaluatedItems")
        place.rule.has_unevaluated = compiler.has_unevaluated = True
    if (items.size_min or items.size_max >= 0 or items.is_unique or items.first is not None or items.rest is not None
            or items.contained is not None or items.unevaluated is not None):
        place.rule.items = items
    return 0


cdef int fill_members(SchemaCompiler compiler, SchemaPlace place, dict schema) except -1:
    cdef SchemaMembers members = SchemaMembers.__new__(SchemaMembers)
    cdef int draft = place.resource.draft
    members.size_min = size_of(schema, "minProperties", 0)
    members.size_max = size_of(schema, "maxProperties", -1)
    if schema.get("required"):
        members.required = tuple(schema["required"])
    if schema.get("properties"):
        members.rules = {
            name: compiler.held(place, f"/properties/{escape_pointer(name)}") for name in schema["properties"]
        }
    if schema.get("patternProperties"):
        members.patterns = tuple([
            (compiler.pattern(text, f"{place.pointer}/patternProperties/{escape_pointer(text)}"),
             compiler.held(place, f"/patternProperties/{escape_pointer(text)}"))
            for text in schema["patternProperties"]
        ])
    if "additionalProperties" in schema:
        members.others = compiler.held(place, "/additionalProperties")
    if draft >= 6 and "propertyNames" in schema:
        members.names = compiler.held(place, "/propertyNames")
    if draft >= 2019 and "unevaluatedProperties" in schema:
        members.unevaluated = compiler.held(place, "/unevaluatedProperties")
        place.rule.has_unevaluated = compiler.has_unevaluated = True
    fill_dependents(compiler, place, schema, members)
    if (members.size_min or members.size_max >= 0 or members.required is not None or members.rules is not None
            or members.patterns is not None or members.others is not None or members.names is not None
            or members.needed is not None or members.dependents is not None or members.unevaluated is not None):
        place.rule.members = members
    return 0


cdef int fill_dependents(SchemaCompiler compiler, SchemaPlace place, dict schema, SchemaMembers members) except -1:
    cdef int draft = place.resource.draft
    cdef list needed = []
    cdef list dependents = []
    cdef dict schemas
    for keyword in ("dependencies", "dependentRequired", "dependentSchemas"):
        if keyword not in schema or (draft < 2019 and keyword != "dependencies"):
            continue
        schemas = schema[keyword]
        for name, value in schemas.items():
            if type(value) is list:
                needed.append((name, tuple(value)))
            else:
                dependents.append((name, compiler.held_here(place, f"/{keyword}/{escape_pointer(name)}")))
    members.needed = tuple(needed) if needed else None
    members.dependents = tuple(dependents) if dependents else None
    return 0


cdef tuple rules_here(SchemaCompiler compiler, SchemaPlace place, dict schema, str keyword):
    if keyword not in schema:
        return None
    return tuple([compiler.held_here(place, f"/{keyword}/{index}") for index in range(len(schema[keyword]))])


cdef int fill_branches(SchemaCompiler compiler, SchemaPlace place, dict schema) except -1:
    cdef SchemaBranches branches = SchemaBranches.__new__(SchemaBranches)
    fill_references(compiler, place, schema, branches)
    branches.all_of = rules_here(compiler, place, schema, "allOf")
    branches.any_of = rules_here(compiler, place, schema, "anyOf")
    branches.one_of = rules_here(compiler, place, schema, "oneOf")
    if "not" in schema:
        branches.never = compiler.held_here(place, "/not")
        branches.never_text = schema["not"]
    if "if" in schema and place.resource.draft >= 7:
        branches.condition = compiler.held_here(place, "/if")
        branches.then = compiler.held_here(place, "/then") if "then" in schema else None
        branches.otherwise = compiler.held_here(place, "/else") if "else" in schema else None
    if (branches.reference is not None or branches.dynamic is not None
            or branches.all_of is not None or branches.any_of is not None
            or branches.one_of is not None or branches.never is not None or branches.condition is not None):
        place.rule.branches = branches
    return 0


cdef int fill_references(SchemaCompiler compiler, SchemaPlace place, dict schema, SchemaBranches branches) except -1:
    """`$ref`, and the one reference whose meaning depends on where a check has come from."""
    cdef int draft = place.resource.draft
    cdef str keyword = "$dynamicRef" if draft >= 2020 else "$recursiveRef"
    cdef SchemaPlace found
    cdef str name
    if "$ref" in schema and type(schema["$ref"]) is str:
        branches.reference = compiler.here(place, compiler.rule_of(resolved(place, "$ref", schema["$ref"])))
    if draft >= 2019 and type(schema.get(keyword)) is str:
        found = resolved(place, keyword, schema[keyword])
        branches.dynamic = compiler.here(place, compiler.rule_of(found))
        name = "" if draft < 2020 else schema[keyword].partition("#")[2]
        if found.resource.dynamic_places.get(name) is found:
            branches.dynamic_name = name
            compiler.dynamic_uses.append((place, name))
    return 0
