"""Stage 4, expressions: mathematical builtins, all over doubles."""

from libc cimport math as libm
from libc.math cimport fabs as c_fabs
from libc.math cimport floor as c_floor
from libc.math cimport INFINITY, NAN, isinf, isnan

cdef extern from "math.h" nogil:
    double c_exp10 "exp10"(double)
    double c_significand "significand"(double)
    double c_gamma "lgamma"(double)
    double c_lgamma_r "lgamma_r"(double, int*)
    double c_drem "drem"(double, double)
    double c_ldexp "ldexp"(double, int)
    double c_scalb "scalb"(double, double)
    double c_scalbln "scalbln"(double, long)
    double c_nearbyint "nearbyint"(double)
    double c_logb "logb"(double)
    double c_j0 "j0"(double)
    double c_j1 "j1"(double)
    double c_y0 "y0"(double)
    double c_y1 "y1"(double)
    double c_jn "jn"(int, double)
    double c_yn "yn"(int, double)
    double c_nexttoward "nexttoward"(double, long double)
    double c_frexp "frexp"(double, int*)
    double c_modf "modf"(double, double*)

cdef double required(object value) except? -1.5:
    if not is_number(value):
        type_error(value, "number required")
    return to_double(value)


cdef double scaled(double value, double exponent) noexcept nogil:
    return c_ldexp(value, <int>exponent)


cdef double scaled_long(double value, double exponent) noexcept nogil:
    return c_scalbln(value, <long>exponent)


cdef double toward(double value, double target) noexcept nogil:
    return c_nexttoward(value, <long double>target)


cdef object f_infinite(object input, object a, object b, object c):
    return from_double(INFINITY)


cdef object f_nan(object input, object a, object b, object c):
    return from_double(NAN)


cdef object f_isinfinite(object input, object a, object b, object c):
    return is_number(input) and bool(isinf(to_double(input)))


cdef object f_isnan(object input, object a, object b, object c):
    return is_number(input) and bool(isnan(to_double(input)))


cdef object f_isnormal(object input, object a, object b, object c):
    cdef double value
    if not is_number(input):
        return False
    value = to_double(input)
    return not (isnan(value) or isinf(value) or c_fabs(value) < 2.2250738585072014e-308)


cdef object f_isfinite(object input, object a, object b, object c):
    return is_number(input) and not isinf(to_double(input))


cdef object f_fma(object input, object a, object b, object c):
    return from_double(libm.fma(required(a), required(b), required(c)))


cdef object f_frexp(object input, object a, object b, object c):
    cdef int exponent = 0
    cdef double fraction = c_frexp(required(input), &exponent)
    return [from_double(fraction), exponent]


cdef object f_modf(object input, object a, object b, object c):
    cdef double whole = 0
    cdef double fraction = c_modf(required(input), &whole)
    return [from_double(fraction), from_double(whole)]


cdef object f_lgamma_r(object input, object a, object b, object c):
    cdef int sign = 0
    cdef double value = c_lgamma_r(required(input), &sign)
    return [from_double(value), sign]


cdef int bessel_order(object value) except? -1:
    """The C library counts up to the order, one by one."""
    cdef int order = <int>min(max(required(value), -2147483647.0), 2147483647.0)
    charge(10 + abs(<long>order))
    return order


cdef object f_jn(object input, object a, object b, object c):
    return from_double(c_jn(bessel_order(a), required(b)))


cdef object f_yn(object input, object a, object b, object c):
    return from_double(c_yn(bessel_order(a), required(b)))


cdef object f_floor(object input, object a, object b, object c):
    return input if type(input) is int and is_exact(input) else from_double(c_floor(required(input)))


cdef object apply_math(MathNative native, object input, object a, object b):
    charge(native.cost)
    if native.arity == 0:
        return from_double(native.unary(required(input)))
    return from_double(native.binary(required(a), required(b)))
