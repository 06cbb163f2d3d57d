"""Stage 4, expressions: the direct evaluation of sub-expressions that yield exactly one value, and jq's operators.

Rules: recursion follows the syntax tree, whose depth is bounded; an error is a raised ExpressionError. The order in
which operands are evaluated is jq's (the right one first), because it decides which error is seen. Each node is a step,
but for those that only name a value: whoever has any number of such parts charges for them.
"""

from cpython.dict cimport PyDict_Copy, PyDict_GetItemWithError, PyDict_SetItem
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.long cimport PyLong_FromLongLong
from cpython.object cimport PyObject
from libc cimport math as libm
from libc.math cimport NAN, isnan
from libc.stdint cimport INT64_MAX, INT64_MIN

from fastrunner._jq cimport State


cdef object evaluate(Stack stack, State* state, Node node, object input):
    """The one value of a node the compiler marked single."""
    cdef int kind = node.kind
    cdef object left, right
    cdef PyObject* found
    if kind == N_FIELD:
        state.steps_left -= 1
        left = input if node.a is None else evaluate(stack, state, node.a, input)
        if type(left) is dict:
            found = PyDict_GetItemWithError(left, node.key)
            return <object>found if found != NULL else missing(state, left, node.key)
        return None if left is None else index_error(left, node.key)
    elif kind == N_IDENTITY:
        return input
    elif kind == N_CONST:
        return node.key
    elif kind == N_VARIABLE:
        return stack.load(node.level, node.slot)
    state.steps_left -= 1
    if kind == N_PIPE:
        return evaluate(stack, state, node.b, evaluate(stack, state, node.a, input))
    elif kind == N_BINARY:
        right = node.b.key if node.b.kind == N_CONST else evaluate(stack, state, node.b, input)
        left = node.a.key if node.a.kind == N_CONST else evaluate(stack, state, node.a, input)
        return operate(node.op, left, right)
    elif kind == N_AND:
        return truthy(evaluate(stack, state, node.a, input)) and truthy(evaluate(stack, state, node.b, input))
    elif kind == N_OR:
        return truthy(evaluate(stack, state, node.a, input)) or truthy(evaluate(stack, state, node.b, input))
    elif kind == N_IF:
        if truthy(evaluate(stack, state, node.a, input)):
            return evaluate(stack, state, node.b, input)
        return input if node.c is None else evaluate(stack, state, node.c, input)
    elif kind == N_OBJECT:
        return evaluate_object(stack, state, node, input)
    elif kind == N_NATIVE:
        return evaluate_native(stack, state, node, input)
    elif kind == N_ALTERNATIVE:
        return evaluate_alternative(stack, state, node, input)
    elif kind == N_INDEX:
        right = evaluate(stack, state, node.b, input)
        left = input if node.a is None else evaluate(stack, state, node.a, input)
        return index_value(left, right)
    elif kind == N_STRING:
        return evaluate_string(stack, state, node, input)
    elif kind == N_ARRAY:
        return evaluate_array(stack, state, node, input)
    return evaluate_rare(stack, state, node, input)


cdef object evaluate_rare(Stack stack, State* state, Node node, object input):
    cdef int kind = node.kind
    cdef object value, low, high
    if kind == N_BIND:
        value = evaluate(stack, state, node.a, input)
        bind_pattern(stack, state, <Node>node.kids[0], value)
        return evaluate(stack, state, node.b, input)
    if kind == N_SLICE:
        low = None if node.b is None else evaluate(stack, state, node.b, input)
        high = None if node.c is None else evaluate(stack, state, node.c, input)
        value = input if node.a is None else evaluate(stack, state, node.a, input)
        return slice_value(value, low, high)
    if kind == N_NEGATE:
        return negate(evaluate(stack, state, node.a, input))
    if kind == N_FORMAT:
        return format_value(<str>node.key, input)
    if kind == N_TRY:
        try:
            return evaluate(stack, state, node.a, input)
        except BudgetExceeded:
            raise
        except ExpressionError as error:
            value = error.value
        charge(ERROR_STEPS)
        return evaluate(stack, state, node.b, value)
    if kind == N_REDUCE:
        return reduce_directly(stack, state, node, input)
    if kind == N_ASSIGN:
        return assign_directly(stack, state, node, input)
    if kind == N_FIRST:
        return first_directly(stack, state, node, input)
    if kind == N_PATH:
        return path_directly(stack, state, node, input)
    raise SystemError(f"node {kind} is not single-valued")


cdef object evaluate_object(Stack stack, State* state, Node node, object input):
    cdef dict result = {}
    cdef Py_ssize_t i
    cdef Node key, value
    cdef object name, found
    charge(4 + PyList_GET_SIZE(node.kids))
    for i in range(0, PyList_GET_SIZE(node.kids), 2):
        key = <Node>PyList_GET_ITEM(node.kids, i)
        value = <Node>PyList_GET_ITEM(node.kids, i + 1)
        name = key.key if key.kind == N_CONST else evaluate(stack, state, key, input)
        found = value.key if value.kind == N_CONST else evaluate(stack, state, value, input)
        charge_text(checked_key(name))
        PyDict_SetItem(result, name, found)
    return result


cdef inline str checked_key(object name):
    if type(name) is not str:
        fail(f"Cannot use {kind_name(name)} ({dump_short(name)}) as object key")
    return <str>name


cdef object evaluate_array(Stack stack, State* state, Node node, object input):
    cdef Node kid
    charge(2)
    if node.a is None:
        return []
    if node.a.single != S_YES and node.a.kind != N_COMMA:
        return collect(stack, state, node.a, input)
    if node.a.kind != N_COMMA:
        return [evaluate(stack, state, node.a, input)]
    cdef list result = []
    charge(PyList_GET_SIZE(node.a.kids))
    for kid in node.a.kids:
        result.append(evaluate(stack, state, kid, input))
    return result


cdef object evaluate_native(Stack stack, State* state, Node node, object input):
    cdef Native native = <Native>node.key
    cdef object a = None
    cdef object b = None
    cdef object c = None
    if native.arity > 0:
        if native.arity > 1:
            if native.arity > 2:
                c = evaluate(stack, state, <Node>PyList_GET_ITEM(node.kids, 2), input)
            b = evaluate(stack, state, <Node>PyList_GET_ITEM(node.kids, 1), input)
        a = evaluate(stack, state, <Node>PyList_GET_ITEM(node.kids, 0), input)
    if native.function == NULL:
        return apply_math(<MathNative>native, input, a, b)
    return native.function(input, a, b, c)


cdef object evaluate_alternative(Stack stack, State* state, Node node, object input):
    cdef bint present = True
    cdef object value = evaluate_quietly(stack, state, node.a, input, &present)
    if present and truthy(value):
        return value
    return evaluate(stack, state, node.b, input)


cdef object evaluate_quietly(Stack stack, State* state, Node node, object input, bint* present):
    """A node that may yield nothing because of a `?`; `present` then becomes false."""
    cdef object value
    if node.kind == N_FIELD:
        value = input if node.a is None else evaluate_quietly(stack, state, node.a, input, present)
        if not present[0]:
            return None
        if node.optional and type(value) is not dict and value is not None:
            present[0] = False
            return None
        return index_value(value, node.key)
    if node.kind == N_TRY and node.b is None:
        try:
            return evaluate_quietly(stack, state, node.a, input, present)
        except BudgetExceeded:
            raise
        except ExpressionError:
            charge(ERROR_STEPS)
            present[0] = False
            return None
    return evaluate(stack, state, node, input)


cdef object evaluate_string(Stack stack, State* state, Node node, object input):
    cdef Py_ssize_t i = PyList_GET_SIZE(node.kids)
    cdef list parts = [None] * i
    charge(4 + 2 * i)
    cdef Node kid
    cdef object value
    while i > 0:
        i -= 1
        kid = <Node>PyList_GET_ITEM(node.kids, i)
        if kid.kind == N_CONST and kid.level == 1:
            parts[i] = kid.key
        else:
            value = evaluate(stack, state, kid, input)
            parts[i] = format_value(<str>node.key, value)
    return joined(parts, "")


cdef int bind_pattern(Stack stack, State* state, Node pattern, object value) except -1:
    """Stores the variables of a pattern whose keys are all single."""
    cdef Py_ssize_t i
    cdef Node key, target
    cdef object name, found
    if pattern.kind == N_VARIABLE:
        return stack.store(pattern.slot, value)
    if pattern.kind == P_ARRAY:
        # jq goes from the last element to the first.
        for i in range(PyList_GET_SIZE(pattern.kids) - 1, -1, -1):
            bind_pattern(stack, state, <Node>pattern.kids[i], index_value(value, i))
        return 0
    for i in range(0, PyList_GET_SIZE(pattern.kids), 2):
        key = <Node>pattern.kids[i]
        target = <Node>pattern.kids[i + 1]
        if key.kind == N_VARIABLE:
            found = index_value(value, key.key)
            stack.store(key.slot, found)
        else:
            name = evaluate(stack, state, key, value)
            if type(name) is not str:
                fail(f"Cannot index {kind_name(value)} with {kind_name(name)}")
            found = index_value(value, name)
        if target is not None:
            bind_pattern(stack, state, target, found)
    return 0


# --- operators ---

# Two factors up to this have a product that doubles hold exactly.
cdef long long FACTOR_MAX = 94_906_265


cdef object operate(int op, object left, object right):
    if op == O_ADD:
        return add(left, right)
    elif op == O_SUBTRACT:
        return subtract(left, right)
    elif op == O_EQUAL:
        return equal(left, right)
    elif op == O_NOT_EQUAL:
        return not equal(left, right)
    elif op == O_LESS:
        return compare(left, right) < 0
    elif op == O_LESS_EQUAL:
        return compare(left, right) <= 0
    elif op == O_GREATER:
        return compare(left, right) > 0
    elif op == O_GREATER_EQUAL:
        return compare(left, right) >= 0
    elif op == O_MULTIPLY:
        return multiply(left, right)
    elif op == O_DIVIDE:
        return divide(left, right)
    elif op == A_ALTERNATIVE:
        return left if truthy(left) else right
    return modulo(left, right)


cdef object add(object left, object right):
    cdef long long a = 0
    cdef long long b = 0
    if small_integers(left, right, &a, &b) and -EXACT_INT_MAX_I <= a + b <= EXACT_INT_MAX_I:
        return PyLong_FromLongLong(a + b)
    if is_number(left) and is_number(right):
        return from_double(to_double(left) + to_double(right))
    if left is None:
        return right
    if right is None:
        return left
    if type(left) is str and type(right) is str:
        if len(<str>left) + len(<str>right) > running().bounds.string_size:
            raise BudgetExceeded("expression built a string that is too long")
        return sized(<str>left + <str>right)
    if type(left) is list and type(right) is list:
        if not right:
            return left
        check_array(len(<list>left) + len(<list>right))
        return <list>left + <list>right
    if type(left) is dict and type(right) is dict:
        if not right:
            return left
        charge_merge(<dict>left, <dict>right)
        merged = PyDict_Copy(left)
        (<dict>merged).update(<dict>right)
        return merged
    return type_error2(left, right, "cannot be added")


cdef bint small_integers(object left, object right, long long* a, long long* b) except -1:
    """Whether both are integers that doubles hold exactly, and if so which."""
    cdef int overflow = 0
    cdef int overflow_right = 0
    if type(left) is not int or type(right) is not int:
        return False
    a[0] = PyLong_AsLongLongAndOverflow(left, &overflow)
    b[0] = PyLong_AsLongLongAndOverflow(right, &overflow_right)
    if overflow or overflow_right:
        return False
    return -EXACT_INT_MAX_I <= a[0] <= EXACT_INT_MAX_I and -EXACT_INT_MAX_I <= b[0] <= EXACT_INT_MAX_I


cdef object subtract(object left, object right):
    cdef list result
    cdef long long a = 0
    cdef long long b = 0
    if small_integers(left, right, &a, &b) and -EXACT_INT_MAX_I <= a - b <= EXACT_INT_MAX_I:
        return PyLong_FromLongLong(a - b)
    if is_number(left) and is_number(right):
        return from_double(to_double(left) - to_double(right))
    if type(left) is list and type(right) is list:
        result = []
        for item in <list>left:
            charge(1)
            for other in <list>right:
                charge(1)
                if equal(item, other):
                    break
            else:
                result.append(item)
        return result
    return type_error2(left, right, "cannot be subtracted")


cdef object multiply(object left, object right):
    cdef long long a = 0
    cdef long long b = 0
    if small_integers(left, right, &a, &b) and -FACTOR_MAX <= a <= FACTOR_MAX and -FACTOR_MAX <= b <= FACTOR_MAX:
        # Zero has a sign in doubles, which an integer cannot keep.
        if a != 0 and b != 0 or a >= 0 and b >= 0:
            return PyLong_FromLongLong(a * b)
    if is_number(left) and is_number(right):
        return from_double(to_double(left) * to_double(right))
    if type(left) is str and is_number(right):
        return repeat_string(<str>left, to_double(right))
    if is_number(left) and type(right) is str:
        return repeat_string(<str>right, to_double(left))
    if type(left) is dict and type(right) is dict:
        return merge(<dict>left, <dict>right, 0)
    return type_error2(left, right, "cannot be multiplied")


cdef object repeat_string(str text, double times):
    cdef Py_ssize_t size = len(text)
    if isnan(times) or times < 0:
        return None
    if size == 0 or times < 1:
        return ""
    if times * size >= 2147483647.0:
        fail("Repeat string result too long")
    check_string(times * size)
    return sized(text * <Py_ssize_t>times)


cdef int charge_merge(dict left, dict right) except -1:
    """For copying one object and looking up the keys of another in it."""
    charge(len(left) >> 1)
    return charge_update(right)


cdef int charge_update(dict right) except -1:
    """For looking up the keys of one object in another."""
    charge(4 + len(right))
    for key in right:
        charge_text(<str>key)
    return 0


cdef dict merge(dict left, dict right, int depth):
    cdef dict result
    if depth > VALUE_DEPTH_MAX:
        fail("Object merge too deep")
    if not right:
        return left
    charge_merge(left, right)
    result = PyDict_Copy(left)
    for key, value in right.items():
        charge(2)
        if type(value) is dict and type(left.get(key)) is dict:
            value = merge(<dict>left[key], <dict>value, depth + 1)
        result[key] = value
    return result


cdef object divide(object left, object right):
    cdef double divisor
    if is_number(left) and is_number(right):
        divisor = to_double(right)
        if divisor == 0.0:
            return type_error2(left, right, "cannot be divided because the divisor is zero")
        return from_double(to_double(left) / divisor)
    if type(left) is str and type(right) is str:
        return split_string(<str>left, <str>right)
    return type_error2(left, right, "cannot be divided")


cdef list split_string(str text, str separator):
    charge_search(len(text), len(separator))
    if not text:
        return []
    if not separator:
        check_array(len(text))
        charge(len(text) >> 1 if text.isascii() else 2 * len(text))
        return list(text)
    if len(text) > TEXT_SIZE_SMALL:
        # Counted first: a list of short pieces is much larger than the text.
        pieces = text.count(separator)
        check_array(pieces)
        charge(2 * pieces)
    return text.split(separator)


cdef long long to_integer(double value) noexcept:
    """C's conversion towards zero, saturating."""
    if value < -9223372036854775807.0:
        return INT64_MIN
    if value >= 9223372036854775807.0:
        return INT64_MAX
    return <long long>value


cdef object modulo(object left, object right):
    cdef double a, b
    cdef long long m, n, r
    if not is_number(left) or not is_number(right):
        return type_error2(left, right, "cannot be divided (remainder)")
    a = to_double(left)
    b = to_double(right)
    if isnan(a) or isnan(b):
        return from_double(NAN)
    m = to_integer(a)
    n = to_integer(b)
    if n == 0:
        return type_error2(left, right, "cannot be divided (remainder) because the divisor is zero")
    # jq takes the remainder of magnitudes and gives it the dividend's sign.
    if n == -1 or n == INT64_MIN:
        r = 0 if n == -1 else m
    else:
        n = n if n > 0 else -n
        r = m % n
        if r != 0 and m < 0:
            r -= n
    return from_double(<double>r)


cdef object negate(object value):
    if type(value) is int and is_exact(value):
        return -value
    if is_number(value):
        return from_double(-to_double(value))
    return type_error(value, "cannot be negated")


cdef Node fold(Node node):
    """The constant a binary operation on constants is, or the node itself where that fails."""
    cdef State* state = running()
    cdef long long before = state.steps_left
    if type(node.a.key) is str and type(node.b.key) is not str:
        return node
    state.steps_left = 1_000
    try:
        return constant(operate(node.op, node.a.key, node.b.key), node.offset)
    except ExpressionError:
        return node
    finally:
        state.steps_left = before


# --- index and slice ---

cdef inline object missing(State* state, object value, object key):
    """What an object without a member has for it."""
    if <void*>value == state.guarded:
        raise MissingMember(key)
    return None


cdef object index_error(object value, object key):
    raise ExpressionError(f"Cannot index {kind_name(value)} with {kind_name(key)} ({dump_short(key)})")


cdef object index_value(object value, object key):
    cdef PyObject* found
    cdef double position
    cdef Py_ssize_t index
    if type(key) is str:
        if type(value) is dict:
            charge_text(<str>key)
            found = PyDict_GetItemWithError(value, key)
            return <object>found if found != NULL else missing(running(), value, key)
    elif is_number(key):
        if type(value) is list:
            position = to_double(key)
            if isnan(position):
                return None
            # Towards zero, as a C int.
            position = libm.trunc(position)
            if position < 0:
                position += len(<list>value)
            if position < 0 or position >= len(<list>value):
                return None
            index = <Py_ssize_t>position
            return (<list>value)[index]
    elif type(key) is dict:
        if type(value) is list or type(value) is str or value is None:
            if value is not None:
                check_slice(<dict>key)
            return slice_value(value, (<dict>key).get("start"), (<dict>key).get("end"))
    elif type(key) is list and type(value) is list:
        return indices_of_list(<list>value, <list>key)
    if value is None and (type(key) is str or is_number(key)):
        return None
    return index_error(value, key)


cdef int check_slice(dict key) except -1:
    if "start" not in key or "end" not in key:
        fail("Array/string slice indices must be integers")
    return 0


cdef int slice_bounds(Py_ssize_t size, object low, object high, Py_ssize_t* start, Py_ssize_t* end) except -1:
    """jq's bounds of a slice over `size` elements: the start rounds down, the end up."""
    cdef double a = 0, b
    if low is not None and not is_number(low) or high is not None and not is_number(high):
        fail("Array/string slice indices must be integers")
    a = 0.0 if low is None else to_double(low)
    b = <double>size if high is None else to_double(high)
    if isnan(a):
        a = 0
    if isnan(b):
        b = <double>size
    if a < 0:
        a += size
    if b < 0:
        b += size
    a = 0 if a < 0 else (size if a > size else a)
    b = 0 if b < 0 else (size if b > size else b)
    start[0] = <Py_ssize_t>a
    end[0] = <Py_ssize_t>b
    if end[0] < b:
        end[0] += 1
    if end[0] < start[0]:
        end[0] = start[0]
    return 0


cdef object slice_value(object value, object low, object high):
    cdef Py_ssize_t start = 0
    cdef Py_ssize_t end = 0
    if value is None:
        return None
    if type(value) is list:
        slice_bounds(len(<list>value), low, high, &start, &end)
        charge_elements(end - start)
        return (<list>value)[start:end]
    if type(value) is str:
        slice_bounds(len(<str>value), low, high, &start, &end)
        check_string(end - start)
        return sized((<str>value)[start:end])
    return index_error(value, {"start": low, "end": high})


cdef list indices_of_list(list values, list wanted):
    cdef list result = []
    cdef Py_ssize_t i, j
    cdef Py_ssize_t size = len(wanted)
    if size == 0:
        return result
    for i in range(len(values) - size + 1):
        charge(1)
        for j in range(size):
            charge(1)
            if not equal(values[i + j], wanted[j]):
                break
        else:
            result.append(i)
    return result
