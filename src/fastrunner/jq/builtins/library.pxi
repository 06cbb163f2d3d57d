"""Stage 4, expressions: what builtins a name and arity stand for: macros over the tree, natives, functions written in
jq.

Rules: a macro uses each argument once and refers to nothing a program could redefine. Functions written in jq are
compiled when the extension is loaded. Names are looked up here only after those the program defines.
"""

from libc cimport math as libm
from libc.math cimport isnan

cdef dict NATIVES = {}


cdef Native register(str name, int arity, native_function function):
    cdef Native native = Native.__new__(Native)
    native.name = name
    native.arity = arity
    native.function = function
    NATIVES[(name, arity)] = native
    return native


cdef int register_unary(str name, unary_function function) except -1:
    cdef MathNative native = MathNative.__new__(MathNative)
    native.name = name
    native.unary = function
    native.cost = 4
    NATIVES[(name, 0)] = native
    return 0


cdef int register_binary(str name, binary_function function, int cost=4) except -1:
    cdef MathNative native = MathNative.__new__(MathNative)
    native.name = name
    native.arity = 2
    native.binary = function
    native.cost = cost
    NATIVES[(name, 2)] = native
    return 0


# Their keys come from `keys_node`; the second argument tells whether they were unwrapped.
cdef frozenset BY_KEYS = frozenset(("_sort_by", "_group_by", "_unique_by", "_min_by", "_max_by"))
cdef Native GETPATH = register("getpath", 1, f_getpath)
cdef Native SETPATH = register("setpath", 2, f_setpath)
cdef Native DELPATHS = register("delpaths", 1, f_delpaths)
cdef Native DELETE_LATER = register("_delete_later", 1, f_delete_later)
cdef Native CHECK_KEY = register("_check_key", 1, f_check_key)


cdef int register_values() except -1:
    register("not", 0, f_not)
    register("type", 0, f_type)
    register("error", 0, f_error0)
    register("error", 1, f_error1)
    register("now", 0, f_now)
    register("length", 0, f_length)
    register("abs", 0, f_abs)
    register("toarray", 0, f_toarray)
    register("keys", 0, f_keys)
    register("keys_unsorted", 0, f_keys_unsorted)
    register("has", 1, f_has)
    register("in", 1, f_in)
    register("contains", 1, f_contains)
    register("inside", 1, f_inside)
    register("add", 0, f_add)
    register("sort", 0, f_sort)
    register("_sort_by", 2, f_sort_by)
    register("_group_by", 2, f_group_by)
    register("unique", 0, f_unique)
    register("_unique_by", 2, f_unique_by)
    register("min", 0, f_min)
    register("max", 0, f_max)
    register("_min_by", 2, f_min_by)
    register("_max_by", 2, f_max_by)
    register("reverse", 0, f_reverse)
    register("flatten", 0, f_flatten0)
    register("flatten", 1, f_flatten1)
    register("transpose", 0, f_transpose)
    register("to_entries", 0, f_to_entries)
    register("from_entries", 0, f_from_entries)
    register("bsearch", 1, f_bsearch)
    register("builtins", 0, f_builtins)
    return 0


cdef int register_strings() except -1:
    register("tostring", 0, f_tostring)
    register("tojson", 0, f_tojson)
    register("fromjson", 0, f_fromjson)
    register("tonumber", 0, f_tonumber)
    register("toboolean", 0, f_toboolean)
    register("utf8bytelength", 0, f_utf8bytelength)
    register("startswith", 1, f_startswith)
    register("endswith", 1, f_endswith)
    register("ltrimstr", 1, f_ltrimstr)
    register("rtrimstr", 1, f_rtrimstr)
    register("trimstr", 1, f_trimstr)
    register("trim", 0, f_trim)
    register("ltrim", 0, f_ltrim)
    register("rtrim", 0, f_rtrim)
    register("explode", 0, f_explode)
    register("implode", 0, f_implode)
    register("ascii", 0, f_ascii)
    register("ascii_downcase", 0, f_ascii_downcase)
    register("ascii_upcase", 0, f_ascii_upcase)
    register("split", 1, f_split)
    register("join", 1, f_join)
    register("_strindices", 1, f_strindices)
    register("indices", 1, f_indices)
    register("index", 1, f_index)
    register("rindex", 1, f_rindex)
    register("format", 1, f_format)
    register("_match_impl", 3, f_match)
    register("_match1", 1, f_match1)
    register("_capture1", 1, f_capture1)
    register("_capture", 2, f_capture)
    register("_scan", 2, f_scan)
    register("_split", 2, f_split_by)
    register("_edits", 2, f_edits)
    register("_edited", 2, f_edited)
    register("test", 1, f_test1)
    register("test", 2, f_test2)
    register("gmtime", 0, f_gmtime)
    register("localtime", 0, f_localtime)
    register("mktime", 0, f_mktime)
    register("strftime", 1, f_strftime)
    register("strflocaltime", 1, f_strflocaltime)
    register("strptime", 1, f_strptime)
    register("todate", 0, f_todate)
    register("todateiso8601", 0, f_todateiso8601)
    register("date", 0, f_date)
    register("_read_date", 1, f_read_date)
    return 0


cdef int register_math() except -1:
    register("infinite", 0, f_infinite)
    register("nan", 0, f_nan)
    register("isinfinite", 0, f_isinfinite)
    register("isfinite", 0, f_isfinite)
    register("isnan", 0, f_isnan)
    register("isnormal", 0, f_isnormal)
    register("fma", 3, f_fma)
    register("frexp", 0, f_frexp)
    register("modf", 0, f_modf)
    register("lgamma_r", 0, f_lgamma_r)
    register("floor", 0, f_floor)
    register("jn", 2, f_jn)
    register("yn", 2, f_yn)
    register_unary("sqrt", libm.sqrt)
    register_unary("ceil", libm.ceil)
    register_unary("round", libm.round)
    register_unary("trunc", libm.trunc)
    register_unary("rint", libm.rint)
    register_unary("nearbyint", c_nearbyint)
    register_unary("fabs", libm.fabs)
    register_unary("exp", libm.exp)
    register_unary("exp2", libm.exp2)
    register_unary("exp10", c_exp10)
    register_unary("expm1", libm.expm1)
    register_unary("log", libm.log)
    register_unary("log2", libm.log2)
    register_unary("log10", libm.log10)
    register_unary("log1p", libm.log1p)
    register_unary("logb", c_logb)
    register_unary("cbrt", libm.cbrt)
    register_unary("sin", libm.sin)
    register_unary("cos", libm.cos)
    register_unary("tan", libm.tan)
    register_unary("asin", libm.asin)
    register_unary("acos", libm.acos)
    register_unary("atan", libm.atan)
    register_unary("sinh", libm.sinh)
    register_unary("cosh", libm.cosh)
    register_unary("tanh", libm.tanh)
    register_unary("asinh", libm.asinh)
    register_unary("acosh", libm.acosh)
    register_unary("atanh", libm.atanh)
    register_unary("gamma", c_gamma)
    register_unary("lgamma", libm.lgamma)
    register_unary("tgamma", libm.tgamma)
    register_unary("erf", libm.erf)
    register_unary("erfc", libm.erfc)
    register_unary("significand", c_significand)
    register_unary("j0", c_j0)
    register_unary("j1", c_j1)
    register_unary("y0", c_y0)
    register_unary("y1", c_y1)
    return 0


cdef int register_binary_math() except -1:
    register_binary("pow", libm.pow)
    register_binary("atan2", libm.atan2)
    register_binary("fmod", libm.fmod, 200)
    register_binary("hypot", libm.hypot)
    register_binary("fmin", libm.fmin)
    register_binary("fmax", libm.fmax)
    register_binary("fdim", libm.fdim)
    register_binary("copysign", libm.copysign)
    register_binary("nextafter", libm.nextafter)
    register_binary("nexttoward", toward)
    register_binary("remainder", libm.remainder, 200)
    register_binary("drem", c_drem, 200)
    register_binary("ldexp", scaled)
    register_binary("scalb", c_scalb)
    register_binary("scalbln", scaled_long)
    return 0


register_values()
register_strings()
register_math()
register_binary_math()

# --- macros: written in jq, with arguments as $1, $2 ... in the tree ---

# Each argument is used once. `("first", 1)` and others are nodes of their own, with instructions to match.
cdef frozenset MACROS = frozenset((
    ("empty", 0), ("first", 1), ("last", 1), ("path", 1), ("range", 1), ("range", 2), ("_range", 3), ("recurse", 0),
    ("map", 1), ("select", 1), ("add", 1), ("del", 1), ("sort_by", 1), ("group_by", 1), ("unique_by", 1), ("min_by", 1),
    ("max_by", 1), ("with_entries", 1), ("map_values", 1), ("isempty", 1), ("any", 0), ("any", 1), ("any", 2),
    ("all", 0), ("all", 1), ("all", 2), ("first", 0), ("last", 0), ("nth", 1), ("values", 0), ("nulls", 0),
    ("arrays", 0), ("objects", 0), ("booleans", 0), ("numbers", 0), ("strings", 0), ("iterables", 0), ("scalars", 0),
    ("have_literal_numbers", 0), ("have_decnum", 0), ("INDEX", 1), ("INDEX", 2),
))


cdef Node native_node(str name, list arguments):
    cdef Node node = list_node(N_NATIVE, 0, arguments)
    node.key = NATIVES[(name, len(arguments))]
    return node


cdef Node iterate_node():
    return new_node(N_ITERATE, 0)


cdef Node map_node(Node body):
    return new_node(N_ARRAY, 0, new_node(N_PIPE, 0, iterate_node(), body))


cdef Node keys_node(Node body):
    return map_node(new_node(N_ARRAY, 0, body))


cdef Node index_node(Node stream, Node key):
    """`reduce stream as $row ({}; .[$row | key | tostring] = $row)`, with a variable no program can name."""
    cdef Node path = new_node(N_PIPE, 0, key, native_node("tostring", []))
    cdef Node node = new_node(N_ASSIGN, 0, None, variable(" row"))
    node.a = new_node(N_INDEX, 0, None, new_node(N_PIPE, 0, variable(" row"), path))
    node.op = A_SET
    return new_node(N_REDUCE, 0, stream, list_node(N_OBJECT, 0, []), node, None, [variable(" row")])


cdef int unwrap_keys(Node node) noexcept:
    """Makes the keys of `sort_by` and the like values instead of arrays of one, where each is one by construction."""
    cdef Node keys = <Node>node.kids[0]
    cdef Node key = keys.a.b if keys.kind == N_ARRAY and keys.a.kind == N_PIPE else None
    if key is not None and key.kind == N_ARRAY and key.a is not None and key.a.single == S_YES:
        keys.a.b = key.a
        node.kids[1] = constant(True)
    return 0


cdef Node first_of(Node generator, Node condition, bint wanted):
    """Whether some (`wanted`) or every condition over a generator's results holds."""
    cdef Node found = constant(wanted)
    cdef Node test
    if wanted:
        test = new_node(N_IF, 0, condition, found, new_node(N_EMPTY, 0))
    else:
        test = new_node(N_IF, 0, condition, new_node(N_EMPTY, 0), found)
    test = new_node(N_PIPE, 0, generator, test)
    return new_node(N_FIRST, 0, list_node(N_COMMA, 0, [test, constant(not wanted)]))


cdef Node macro(str name, list arguments):
    """The tree of a macro's call; None if the name is no macro."""
    cdef Node a = <Node>arguments[0] if arguments else None
    cdef Node b = <Node>arguments[1] if len(arguments) > 1 else None
    cdef Node node
    if name == "empty":
        return new_node(N_EMPTY, 0)
    if name == "recurse":
        return new_node(N_RECURSE, 0)
    if name == "select":
        return new_node(N_IF, 0, a, new_node(N_IDENTITY, 0), new_node(N_EMPTY, 0))
    if name == "map":
        return map_node(a)
    if name == "map_values":
        node = new_node(N_ASSIGN, 0, iterate_node(), a)
        node.op = A_MODIFY
        return node
    if name == "range" or name == "_range":
        return list_node(N_RANGE, 0, arguments if b is not None else [constant(0), a])
    if name == "path":
        return new_node(N_PATH, 0, a)
    if name == "del":
        return native_node("delpaths", [new_node(N_ARRAY, 0, new_node(N_PATH, 0, a))])
    if name == "add":
        return new_node(N_PIPE, 0, new_node(N_ARRAY, 0, a), native_node("add", []))
    if name == "with_entries":
        node = new_node(N_PIPE, 0, map_node(a), native_node("from_entries", []))
        return new_node(N_PIPE, 0, native_node("to_entries", []), node)
    if name == "INDEX":
        return index_node(iterate_node() if b is None else a, a if b is None else b)
    if name in ("sort_by", "group_by", "unique_by", "min_by", "max_by"):
        return native_node("_" + name, [keys_node(a), constant(False)])
    return selecting_macro(name, a, b)


cdef Node selecting_macro(str name, Node a, Node b):
    cdef Node node, identity = new_node(N_IDENTITY, 0)
    if name == "isempty":
        return new_node(N_FIRST, 0, list_node(N_COMMA, 0, [new_node(N_PIPE, 0, a, constant(False)), constant(True)]))
    if name == "any" or name == "all":
        if b is not None:
            return first_of(a, b, name == "any")
        return first_of(iterate_node(), identity if a is None else a, name == "any")
    if name == "first" and a is not None:
        return new_node(N_FIRST, 0, a)
    if name == "last" and a is not None:
        return new_node(N_LAST, 0, a)
    if name == "first" or name == "last":
        return new_node(N_INDEX, 0, None, constant(0 if name == "first" else -1))
    if name == "nth":
        return new_node(N_INDEX, 0, None, a)
    if name == "values" or name == "nulls":
        return kept_if(comparison(O_EQUAL if name == "nulls" else O_NOT_EQUAL, identity, None))
    if name == "scalars":
        return kept_if(new_node(N_AND, 0, of_type(O_NOT_EQUAL, "array"), of_type(O_NOT_EQUAL, "object")))
    if name == "iterables":
        return kept_if(new_node(N_OR, 0, of_type(O_EQUAL, "array"), of_type(O_EQUAL, "object")))
    if name in ("arrays", "objects", "booleans", "numbers", "strings"):
        return kept_if(of_type(O_EQUAL, name[: len(name) - 1]))
    return constant(name != "have_decnum")


cdef Node kept_if(Node condition):
    return new_node(N_IF, 0, condition, new_node(N_IDENTITY, 0), new_node(N_EMPTY, 0))


cdef Node comparison(int op, Node left, object right):
    cdef Node node = new_node(N_BINARY, 0, left, constant(right))
    node.op = op
    return node


cdef Node of_type(int op, str kind):
    return comparison(op, native_node("type", []), kind)


cdef bint expand_macro(Node node, str name, int arity) except -1:
    """Makes a call of a macro the tree it stands for."""
    cdef Node tree
    if (name, arity) not in MACROS:
        return False
    tree = macro(name, node.kids)
    node.kind = tree.kind
    node.op = tree.op
    node.a = tree.a
    node.b = tree.b
    node.c = tree.c
    node.key = tree.key
    node.kids = tree.kids
    return True


# --- functions written in jq ---

cdef dict LIBRARY = {
    "recurse/1": "def recurse(f): def r: ., (f | r); r;",
    "recurse/2": "def recurse(f; cond): def r: ., (f | select(cond) | r); r;",
    "while/2": "def while(cond; update): def w: if cond then ., (update | w) else empty end; w;",
    "until/2": "def until(cond; update): def u: if cond then . else (update | u) end; u;",
    "repeat/1": "def repeat(f): def r: f, r; r;",
    "range/3": (
        "def range($from; $upto; $by): if [$from, $upto, $by] | all(type == \"number\") "
        "then _range($from; $upto; $by) elif $by > 0 then $from | while(. < $upto; . + $by) "
        "elif $by < 0 then $from | while(. > $upto; . + $by) else empty end;"
    ),
    "limit/2": (
        "def limit($n; f): if $n > 0 then label $out | foreach f as $item "
        "($n; . - 1; $item, if . <= 0 then break $out else empty end) elif $n == 0 then empty "
        "else error(\"limit doesn't support negative count\") end;"
    ),
    "skip/2": (
        "def skip($n; f): if $n > 0 then foreach f as $item ($n; . - 1; if . < 0 then $item else empty end) "
        "elif $n == 0 then f else error(\"skip doesn't support negative count\") end;"
    ),
    "nth/2": (
        "def nth($n; f): if $n < 0 then error(\"nth doesn't support negative indices\") "
        "else first(skip($n; f)) end;"
    ),
    "paths/0": "def paths: path(..) | select(length > 0);",
    "paths/1": "def paths(f): path(.. | select(f)) | select(length > 0);",
    "pick/1": "def pick(f): . as $in | reduce path(f) as $p (null; setpath($p; $in | getpath($p)));",
    "walk/1": (
        "def walk(f): def w: if type == \"object\" then map_values(w) elif type == \"array\" then map(w) "
        "else . end | f; w;"
    ),
    "normals/0": "def normals: select(isnormal);",
    "finites/0": "def finites: select(isfinite);",
    "combinations/0": (
        "def combinations: if length == 0 then [] else .[0][] as $x | (.[1:] | combinations) as $y "
        "| [$x] + $y end;"
    ),
    "combinations/1": "def combinations(n): . as $dot | [range(n) | $dot] | combinations;",
    "tostream/0": (
        "def tostream: path(def r: (.[]? | r), .; r) as $p | getpath($p) "
        "| reduce path(.[]?) as $q ([$p, .]; [$p + $q]);"
    ),
    "fromstream/1": (
        "def fromstream(f): {x: null, e: false} as $init | foreach f as $i ($init; "
        "if .e then $init else . end | if $i | length == 2 "
        "then setpath([\"e\"]; $i[0] | length == 0) | setpath([\"x\"] + $i[0]; $i[1]) "
        "else setpath([\"e\"]; $i[0] | length == 1) end; if .e then .x else empty end);"
    ),
    "truncate_stream/1": (
        "def truncate_stream(f): . as $n | null | f | . as $input "
        "| if (.[0] | length) > $n then setpath([0]; .[0][$n:]) else empty end;"
    ),
    "IN/1": "def IN(s): any(s == .; .);",
    "IN/2": "def IN(src; s): any(src == s; .);",
    "JOIN/2": "def JOIN($idx; f): [.[] | [., $idx[f]]];",
    "JOIN/3": "def JOIN($idx; stream; f): stream | [., $idx[f]];",
    "JOIN/4": "def JOIN($idx; stream; f; join): stream | [., $idx[f]] | join;",
    "fromdateiso8601/0": "def fromdateiso8601: _read_date(\"fromdateiso8601\") | mktime;",
    "fromdate/0": "def fromdate: _read_date(\"fromdate\") | mktime;",
    "dateadd/2": "def dateadd(u; n): . + n;",
    "datesub/2": "def datesub(u; n): . - n;",
    "match/1": "def match(re): _match1(re) | .[];",
    "match/2": "def match(re; mode): _match_impl(re; mode; false) | .[];",
    "capture/1": "def capture(re): _capture1(re) | .[];",
    "capture/2": "def capture(re; mode): _capture(re; mode) | .[];",
    "scan/1": "def scan($re): _scan($re; \"g\") | .[];",
    "scan/2": "def scan($re; $flags): _scan($re; \"g\" + $flags) | .[];",
    "splits/1": "def splits($re): splits($re; null);",
    "splits/2": "def splits($re; flags): split($re; flags) | .[];",
    "split/2": "def split($re; flags): _split($re; flags + \"g\");",
    "sub/2": "def sub($re; s): sub($re; s; \"\");",
    "sub/3": (
        "def sub($re; s; $flags): _edits($re; $flags) as $e | _edited($e[1]; [$e[0][] | [s]]) | .[];"
    ),
    "gsub/2": "def gsub($re; s): sub($re; s; \"g\");",
    "gsub/3": "def gsub($re; s; $flags): sub($re; s; $flags + \"g\");",
}
# All compiled when the extension is loaded, so that no program pays for being the first to use one.
cdef dict LIBRARY_UNITS = {}


cdef object library_source(str name, int arity):
    return LIBRARY.get(f"{name}/{arity}")


cdef Unit library_unit(str name, int arity):
    """The compiled library function; it is known before its body is, for the sake of recursion."""
    cdef str key = f"{name}/{arity}"
    cdef Unit unit = LIBRARY_UNITS.get(key)
    cdef Emitter emitter
    cdef Node node
    if unit is not None:
        return unit
    node = Parser().parse(<str>LIBRARY[key])
    emitter = Emitter()
    emitter.names.library = True
    unit = new_unit(None)
    LIBRARY_UNITS[key] = unit
    emitter.define(node, unit, None)
    return unit


cdef list builtin_names():
    cdef set names = set(NATIVES) | set(MACROS)
    for key in LIBRARY:
        name, _, arity = key.rpartition("/")
        names.add((name, int(arity)))
    return sorted(entry for entry in names if not entry[0].startswith("_"))


cdef list BUILTINS = [f"{name}/{arity}" for name, arity in builtin_names()]


cdef object f_builtins(object input, object a, object b, object c):
    return BUILTINS
