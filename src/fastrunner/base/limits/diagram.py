"""Support: the bounds of diagrams."""

from typing import Final

DIAGRAM_LABEL_SIZE_CHARS_MAX: Final = 80
"""What a diagram says of a task or of a way beside its name: a line that a person takes in. Expressions may have
thousands of characters; what is cut stands in the document."""
