"""Stage 5, tasks: the bounds of `call: grpc`."""

from typing import Final

GRPC_PROTO_FILES_MAX: Final = 64
"""Files of one description, those that it imports included: each is a request before the call."""

GRPC_PROTO_SIZE_BYTES_MAX: Final = 1_048_576
"""All of them together: what is made of so much holds the interpreter for a tenth of a second."""

GRPC_IMPORT_SIZE_CHARS_MAX: Final = 255
"""Name of an imported file: it becomes one."""

GRPC_IMPORT_DEPTH_MAX: Final = 16
"""Folders in the name of an imported file: each is made."""

GRPC_COMPILERS_MAX: Final = 2
"""Compilers a worker has running; further texts wait in order. Each is a process that has 50 MiB for a fifth of a
second."""

GRPC_COMPILE_S_MAX: Final = 20.0
"""Time of one compiler: the largest texts take a second and a half."""

GRPC_COMPILE_MEMORY_SIZE_BYTES_MAX: Final = 536_870_912
"""Addresses of one compiler: ten times what the largest texts take, because most of it is never touched."""

GRPC_COMPILED_SIZE_BYTES_MAX: Final = 2_097_152
"""Descriptors of one description: twice what the largest texts make of themselves."""

GRPC_COMPILED_COUNT_MAX: Final = 64
"""Descriptions that a worker keeps compiled, and texts of which it keeps why they cannot be."""

GRPC_COMPILED_KEPT_SIZE_BYTES_MAX: Final = 8_388_608
"""Descriptors of all that it keeps; in memory they take several times that."""

GRPC_COMPILER_SHOWN_SIZE_CHARS_MAX: Final = 1_000
"""The compiler's words in an error: the first few faults."""

GRPC_REFLECTED_S_MAX: Final = 60.0
"""How long what a server says of itself is believed, unless it turns out not to know a method: it changes when it is
replaced."""

GRPC_MESSAGE_SIZE_BYTES_MAX: Final = 4_194_304
"""One message, either way: what gRPC's own libraries take unless told otherwise."""

GRPC_STREAM_SIZE_BYTES_MAX: Final = 8_388_608
"""All messages of one stream, either way: what the body of an HTTP response may have."""

GRPC_STREAM_MESSAGES_MAX: Final = 10_000
"""Messages of one stream, either way: each costs a trip through the loop."""

GRPC_SMALL_SIZE_BYTES: Final = 1_024
"""Messages that are converted at once; larger ones by a thread, which lets the loop have turns: a byte takes up to five
microseconds."""

GRPC_SMALL_COUNT: Final = 200
"""Values in arguments, and messages of a stream, that are converted at once."""

GRPC_METADATA_SIZE_BYTES_MAX: Final = 65_536
"""Metadata of one answer: as the headers of an HTTP response."""

GRPC_STATUS_SHOWN_SIZE_CHARS_MAX: Final = 1_000
"""A server's words in an error."""

GRPC_CHANNELS_IDLE_MAX: Final = 64
"""Connections that a worker keeps without a call; the one that has had none for longest is closed."""

GRPC_CHANNEL_IDLE_S: Final = 60.0
"""How long a connection is kept without a call."""

GRPC_ADDRESSES_S_MAX: Final = 10.0
"""How long the addresses of a name are believed, as the HTTP client does."""
