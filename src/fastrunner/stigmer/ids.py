"""Support: what an id of an execution may be: what the runner takes, so that whatever it reports is kept."""

from fastrunner.base import limits

__all__ = ["id_refusal"]


def id_refusal(execution_id: str) -> str:
    """What is wrong with an id; empty if it is one."""
    size_bytes = len(execution_id.encode("utf-8", "replace"))
    if not 0 < size_bytes <= limits.EXECUTION_ID_SIZE_BYTES_MAX:
        return f"it has {size_bytes} bytes: from 1 to {limits.EXECUTION_ID_SIZE_BYTES_MAX} are needed"
    if any(ord(char) < 32 or 127 <= ord(char) < 160 for char in execution_id):
        return "it has a control character: leave it out"
    return ""
