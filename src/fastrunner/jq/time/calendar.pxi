"""Stage 4, expressions: dates. Broken-down times are arrays: year, month from 0, day, hour, minute, second, weekday,
yearday.

Rules: no clock and no time zone of the host: `now` is an argument of the evaluation, local time is UTC. Formats are in
strftime.pxi, reading in strptime.pxi.
"""

from libc.math cimport floor as c_floor
from libc.math cimport isnan

cdef tuple DAY_NAMES = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
cdef tuple MONTH_NAMES = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)


cdef list EMPTY_TIME = [1900, 0, 0, 0, 0, 0, 0, 0]
cdef long long INT_MAX = 2147483647


cdef long long days_from_civil(long long year, long long month, long long day):
    """Days since the epoch of a proleptic Gregorian date; `month` counts from 1."""
    year -= month <= 2
    cdef long long era = year // 400
    cdef long long of_era = year - era * 400
    cdef long long of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


cdef int civil(long long days, long long* year, long long* month, long long* day) noexcept:
    """The date of a number of days from the epoch."""
    cdef long long era, of_era, years, of_year, shifted
    days += 719468
    era = days // 146097
    of_era = days - era * 146097
    years = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * years + years // 4 - years // 100)
    shifted = (5 * of_year + 2) // 153
    day[0] = of_year - (153 * shifted + 2) // 5 + 1
    month[0] = shifted + 3 if shifted < 10 else shifted - 9
    year[0] = years + era * 400 + (month[0] <= 2)
    return 0


cdef tuple civil_from_days(long long days):
    cdef long long year, month, day
    civil(days, &year, &month, &day)
    return year, month, day


cdef list broken_down(double seconds):
    charge(20)
    # jq truncates to whole seconds but adds the fraction counted from below; so do we.
    cdef long long total = <long long>seconds
    cdef double fraction = seconds - c_floor(seconds)
    cdef long long days = total // 86400
    cdef long long rest = total - days * 86400
    year, month, day = civil_from_days(days)
    return [
        year, month - 1, day, rest // 3600, rest // 60 % 60, from_double(<double>(rest % 60) + fraction),
        (days + 4) % 7, days - days_from_civil(year, 1, 1),
    ]


cdef object f_gmtime(object input, object a, object b, object c):
    return gmtime(input, "gmtime()")


cdef object f_localtime(object input, object a, object b, object c):
    return gmtime(input, "localtime()")


cdef list gmtime(object input, str name):
    cdef double seconds
    if not is_number(input):
        fail(f"{name} requires numeric inputs")
    seconds = to_double(input)
    # Years are ints in C.
    if not -67768040609740800.0 <= seconds <= 67768036191676799.0:
        fail("error converting number of seconds since epoch to datetime")
    return broken_down(seconds)


cdef list datetime_parts(object input, str name):
    """The eight whole numbers of a broken-down time, each within C's int; missing ones are those of an empty one."""
    cdef list parts = []
    cdef double number
    if type(input) is not list:
        fail(f"{name} requires parsed datetime inputs")
    charge(20)
    for value in (<list>input)[:8]:
        if not is_number(value) or isnan(to_double(value)):
            fail(f"{name} requires parsed datetime inputs")
        # Years count from 1900 before they are cut to whole numbers.
        number = to_double(value) - (0 if parts else 1900)
        parts.append(min(max(to_integer(number), -INT_MAX - 1), INT_MAX) + (0 if parts else 1900))
    return parts + EMPTY_TIME[len(parts):]


cdef long long epoch_seconds(list parts):
    cdef long long month = parts[1]
    cdef long long year = <long long>parts[0] + month // 12
    return (
        (days_from_civil(year, month % 12 + 1, 1) + <long long>parts[2] - 1) * 86400
        + <long long>parts[3] * 3600 + <long long>parts[4] * 60 + <long long>parts[5]
    )


cdef object f_mktime(object input, object a, object b, object c):
    if type(input) is not list:
        fail("mktime requires array inputs")
    return epoch_seconds(datetime_parts(input, "mktime"))
