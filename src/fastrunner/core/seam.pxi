"""Stage 4, walk: what a walk asks of its driver (actions) and what the driver answers (outcomes).

Rules: plain immutable carriers without behaviour; their values never appear in a repr, because those reach logs. An
effect is asked for as a capsule: what its arguments are made of, never the arguments, so that what is secret is not in
it and what is large is shared with the walk.
"""

cimport cython


# Without it nothing is made of a class whose objects come from functions: not by `__new__`, copy or pickle either.
cdef object KEY = object()


@cython.final
cdef class Facts:
    """What expressions may know of an execution as a whole."""


@cython.final
cdef class Capsule:
    """An effect's arguments before they are rendered; `_core.pyi` has the contract."""

    def __cinit__(self, key=None):
        if key is not KEY:
            raise TypeError("capsules come from a walk, or from Plan.load_capsule")

    def __repr__(self):
        return f"Capsule(task_index={self.task_index})"


@cython.final
cdef class PerformEffect:
    def __init__(self, long long effect_id, str kind not None, Capsule capsule not None, str idempotency_key not None,
                 str reference not None):
        self.effect_id = effect_id
        self.kind = kind
        self.capsule = capsule
        self.idempotency_key = idempotency_key
        self.reference = reference

    def __repr__(self):
        return f"PerformEffect({self.effect_id}, {self.kind!r}, reference={self.reference!r})"


@cython.final
cdef class InterruptEffect:
    cdef readonly long long effect_id

    def __init__(self, long long effect_id):
        self.effect_id = effect_id

    def __repr__(self):
        return f"InterruptEffect({self.effect_id})"


@cython.final
cdef class Subscribe:
    cdef readonly long long subscription_id
    cdef readonly object filter
    cdef readonly str reference
    cdef bint replaces
    """The driver has the number already, with another filter."""

    def __init__(self, long long subscription_id, object filter, str reference not None):
        self.subscription_id = subscription_id
        self.filter = filter
        self.reference = reference

    def __repr__(self):
        return f"Subscribe({self.subscription_id}, reference={self.reference!r})"


@cython.final
cdef class Unsubscribe:
    cdef readonly long long subscription_id

    def __init__(self, long long subscription_id):
        self.subscription_id = subscription_id

    def __repr__(self):
        return f"Unsubscribe({self.subscription_id})"


@cython.final
cdef class EventArrived:
    cdef readonly long long subscription_id
    cdef readonly object event

    def __init__(self, long long subscription_id, object event):
        self.subscription_id = subscription_id
        self.event = event

    def __repr__(self):
        return f"EventArrived({self.subscription_id})"


@cython.final
cdef class EffectResult:
    cdef readonly long long effect_id
    cdef readonly object value
    cdef readonly object authorization

    def __init__(self, long long effect_id, object value, object authorization=None):
        self.effect_id = effect_id
        self.value = value
        self.authorization = authorization

    def __repr__(self):
        return f"EffectResult({self.effect_id})"


# Far beyond what any driver passes on, and far from the end of the integers that hold moments.
cdef long long RETRY_AFTER_MS_MAX = 1 << 40


@cython.final
cdef class EffectFailure:
    cdef readonly long long effect_id
    cdef readonly str type
    cdef readonly int status
    cdef readonly str title
    cdef readonly str detail
    cdef readonly object error
    """The whole DSL error, if it is not made of the fields above."""
    cdef readonly long long retry_after_ms

    def __init__(self, long long effect_id, str type, int status, str title, str detail, *,
                 long long retry_after_ms=0):
        self.retry_after_ms = min(max(retry_after_ms, 0), RETRY_AFTER_MS_MAX)
        self.effect_id = effect_id
        self.type = type
        self.status = status
        self.title = title
        self.detail = detail

    @staticmethod
    def whole(long long effect_id, dict error not None):
        cdef EffectFailure failure = EffectFailure.__new__(EffectFailure)
        failure.effect_id = effect_id
        failure.error = whole_error(error, "")
        failure.type = failure.error["type"]
        failure.status = min(max(failure.error["status"], INT32_MIN), INT32_MAX)
        failure.title, failure.detail = failure.error.get("title", ""), failure.error.get("detail", "")
        return failure

    def __repr__(self):
        return f"EffectFailure({self.effect_id}, {self.type!r}, {self.status})"


@cython.final
cdef class TimerDue:
    def __repr__(self):
        return "TimerDue()"


@cython.final
cdef class MoreSteps:
    def __repr__(self):
        return "MoreSteps()"


@cython.final
cdef class Cancel:
    cdef readonly str reason
    cdef readonly bint force
    cdef readonly long long grace_ms

    def __init__(self, str reason, bint force, long long grace_ms):
        self.reason = reason
        self.force = force
        self.grace_ms = grace_ms

    def __repr__(self):
        return f"Cancel(force={self.force}, grace_ms={self.grace_ms})"


@cython.final
cdef class Pause:
    cdef readonly str reason

    def __init__(self, str reason):
        self.reason = reason

    def __repr__(self):
        return "Pause()"


@cython.final
cdef class Resume:
    cdef readonly str reason

    def __init__(self, str reason):
        self.reason = reason

    def __repr__(self):
        return "Resume()"


cdef dict effect_error(EffectFailure failure, str instance):
    """The error of a failed effect: a whole one as it is, else one of its fields, where a short type name stands for
    the standard error of that name."""
    cdef tuple standard
    if failure.error is not None:
        return whole_error(failure.error, instance)
    standard = STANDARD_ERRORS.get(failure.type)
    cdef dict error = {
        "type": standard[0] if standard is not None else failure.type,
        "status": failure.status or (standard[1] if standard is not None else 500),
        "title": failure.title or (standard[2] if standard is not None else "Error"),
    }
    if failure.detail:
        error["detail"] = failure.detail
    error["instance"] = instance
    return error
