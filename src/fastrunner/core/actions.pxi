"""Stage 4, walk: what a walk asks of its driver (actions) and what the driver answers (outcomes).

Rules: plain immutable carriers without behaviour; their values never appear in a repr, because those reach logs.
"""

cimport cython


@cython.final
cdef class PerformEffect:
    cdef readonly long long effect_id
    cdef readonly str kind
    cdef readonly object arguments
    cdef readonly str idempotency_key
    cdef readonly str reference

    def __init__(self, long long effect_id, str kind, object arguments, str idempotency_key, str reference):
        self.effect_id = effect_id
        self.kind = kind
        self.arguments = arguments
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
cdef class EffectResult:
    cdef readonly long long effect_id
    cdef readonly object value

    def __init__(self, long long effect_id, object value):
        self.effect_id = effect_id
        self.value = value

    def __repr__(self):
        return f"EffectResult({self.effect_id})"


@cython.final
cdef class EffectFailure:
    cdef readonly long long effect_id
    cdef readonly str type
    cdef readonly int status
    cdef readonly str title
    cdef readonly str detail

    def __init__(self, long long effect_id, str type, int status, str title, str detail):
        self.effect_id = effect_id
        self.type = type
        self.status = status
        self.title = title
        self.detail = detail

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
