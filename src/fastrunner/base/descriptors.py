"""Support: file descriptors: how many this process may have, how many strangers may take, whether any are left.

Every connection is one, and so is every file, link and effect of the runner. Rule: what strangers can take is bounded,
so that the runner's own part stays: a listener takes no more connections than `for_strangers` gives it.
"""

import contextlib
import os
import resource

from fastrunner.base import limits

__all__ = ["allow", "are_short", "for_followers", "for_strangers"]


def allow() -> int:
    """Has as many as the administrator lets this process have, the usual limit being 1,024; how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def for_strangers(count_max: int) -> int:
    """How many connections a listener may hold: `count_max`, or what the runner's own reserve leaves."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return count_max
    return min(count_max, limit - min(limits.DESCRIPTORS_RESERVED_MAX, limit // 2))


def for_followers(count_max: int, others_max: int) -> int:
    """How many connections may stay for as long as their clients like: `count_max`, or what leaves a half of them all,
    at most `others_max`, to those who ask something and go."""
    connections = for_strangers(count_max + others_max)
    return min(count_max, connections - min(others_max, connections // 2))


def are_short() -> bool:
    """Whether fewer than a handful can still be opened."""
    opened: list[int] = []
    try:
        for _ in range(limits.DESCRIPTORS_FREE_MIN):
            opened.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return True
    finally:
        for number in opened:
            with contextlib.suppress(OSError):
                os.close(number)
    return False
