"""Stage 3, journal: snapshots of earlier formats, brought up to date before they are read.

Format 1 identified a document by its name and version, kept an effect's arguments beside its strand, and its executions
have behaviour 1.
"""

from itertools import count as _count


cdef list from_format_1(Plan plan, list fields):
    (identity, state, output, error, last_sequence, now_ms, started_at_ms, timeout_at_ms, paused_at_ms, grace_until_ms,
     cancel_reason, random_state, next_strand_id, next_effect_id, ready, held, visits, effects, strands) = fields
    if identity[1:] != [plan.namespace, plan.name, plan.version, len(plan.tasks)]:
        raise ValueError("the snapshot belongs to another document")
    # An outcome that is held belonged to a strand; now it belongs to what the strand's frame asked for.
    numbers = _count(next_effect_id)
    answered = {strand_id: next(numbers) for strand_id, value, problem in held}
    return [
        identity_of(plan, identity[0]),
        [1, plan.behaviour.runner_version, None],
        state, output, error, last_sequence, now_ms, started_at_ms, timeout_at_ms, paused_at_ms, grace_until_ms,
        cancel_reason, random_state, next_strand_id, next(numbers), 0, ready,
        [[answered[strand_id], value, problem] for strand_id, value, problem in held],
        visits,
        [strand_from_format_1(plan, strand, answered.get(strand[0])) for strand in strands],
        [],
        [],
    ]


cdef list strand_from_format_1(Plan plan, list entry, object answered):
    number, owner_id, branch, context, has_exported, wake_at_ms, effect, steps_left, frames = entry
    resources = None
    if effect is not None:
        resources = [[WRITTEN_RENDERED, effect[0], False, effect[2], effect[1]]]
    elif answered is not None:
        resources = [[WRITTEN_EFFECT, answered, True, "", 0]]
    frames = [frames[0], *[frame_from_format_1(plan, frame) for frame in frames[1:]]]
    if resources is not None:
        frames[len(frames) - 1][10] = resources
    return [number, owner_id, branch, context, has_exported, wake_at_ms, steps_left, frames]


cdef list frame_from_format_1(Plan plan, list frame):
    index, position, data, body_attempt, raw_input, input, started_at_ms, timeout_at_ms, attempt = frame[:9]
    kind = (<TaskNode?> plan.tasks[index]).kind.written
    return [index, kind, position, data, body_attempt, raw_input, input, started_at_ms, timeout_at_ms, attempt, None,
            *frame[9:]]
