"""Stage 5, tasks: the bounds of calls of MCP servers and of agents."""

from typing import Final

MCP_RESPONSE_SIZE_BYTES_MAX: Final = 4_194_304
"""What a server may answer to one request, progress included, and one event of it: as much as a server over stdio may
write, RUN_OUTPUT_SIZE_BYTES_MAX. It is read at once, in some 20 ms."""

MCP_CLOSE_S_MAX: Final = 5.0
"""How long a server may take to hear that a session is over; nobody waits for it but a worker that stops."""

A2A_RESPONSE_SIZE_BYTES_MAX: Final = 4_194_304
"""What an agent may answer, all events of a stream together: half of what any response may have, because it is read
twice, by the SDK and into a value."""
