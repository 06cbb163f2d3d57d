"""Stages 2 and 4: the bounds of expressions."""

from typing import Final

EXPRESSION_SIZE_BYTES_MAX: Final = 65_536
"""Text of one expression."""

EXPRESSION_COMPILE_STEPS_MAX: Final = 2_000_000
"""Instructions made and names looked up for one expression that stands alone, with weights: about 40 ms."""

EXPRESSION_STEPS_MAX: Final = 2_000_000
"""Steps of one evaluation: an instruction, or about 20 ns of other work. About 40 ms, so that a machine half as fast
still ends within 100 ms; and as a step makes at most some 64 bytes, about 128 MB."""

EXPRESSION_DEPTH_MAX: Final = 200_000
"""Calls within calls and points to go back to, 150 bytes each: a recursion over 100,000 elements is honest."""

EXPRESSION_OUTPUTS_MAX: Final = 100_000
"""Results of one evaluation; a place takes one value, so more than a few are a mistake."""

EXPRESSION_ARRAY_SIZE_MAX: Final = 1_000_000
"""Elements of one array that an evaluation builds: 8 MB of references, more than a kept value usually has."""

EXPRESSION_ERROR_SIZE_MAX: Final = 4_096
"""Characters of an expression's error message, which may quote data of any size; it travels in an event."""

EXPRESSION_STRING_SIZE_MAX: Final = 8_388_608
"""Characters of one string an evaluation builds."""

REGEX_SIZE_CHARS_MAX: Final = 10_000
"""Characters of a regular expression: hundreds of times those that people write."""

REGEX_DEPTH_MAX: Final = 250
"""Nesting of a regular expression. Its parser recurses, far from the end of the C stack."""

REGEX_INSTRUCTIONS_MAX: Final = 30_000
"""Instructions of a compiled regular expression, 32 bytes each; most characters make one, ligatures six."""

REGEX_STACK_MAX: Final = 524_288
"""Entries of the matcher's stack, a power of two: at 20 bytes each, 10 MB for a match that could go back anywhere."""

REGEX_PATTERNS_MAX: Final = 1_000
"""Compiled regular expressions kept per worker; patterns made from data fall out of it."""
