"""Stage 2, compile: why a text cannot be had."""

__all__ = ["Unresolved"]


class Unresolved(Exception):
    """A text that cannot be had; the message is a clause that follows its URL."""

    def __init__(self, why: str, *, is_transient: bool = False) -> None:
        super().__init__(why)
        self.is_transient = is_transient
        """Whether it may be had later."""
