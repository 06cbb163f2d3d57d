"""Support: the bounds of what workflows may know, and of how their calls prove who calls."""

from typing import Final

SECRET_SIZE_BYTES_MAX: Final = 1_048_576
"""One secret: what Kubernetes allows a whole Secret."""

SECRET_DEPTH_MAX: Final = 32
"""Nesting of a structured secret: policies have three levels."""

SECRET_HIDDEN_SIZE_CHARS_MIN: Final = 8
"""Values from here on are hidden wherever they appear in logs and errors; shorter ones are parts of ordinary words."""

SECRETS_HIDDEN_MAX: Final = 2_000
"""Values that are hidden at a time, in each process: each text for people is searched for all of them."""

TOKENS_KEPT_MAX: Final = 1_000
"""Tokens, and discovery documents, that a worker keeps: one for each policy and each value in it."""

TOKEN_MARGIN_S_MAX: Final = 30.0
"""How long before its end a token is obtained anew: a call takes a while, and clocks differ. A fifth of its time if
that is shorter."""

TOKEN_UNDATED_S: Final = 300.0
"""How long a token is used whose end nobody tells."""

TOKEN_TIMEOUT_S: Final = 30.0
"""One request to an authority, which many calls may wait for."""

TOKEN_RESPONSE_SIZE_BYTES_MAX: Final = 262_144
"""What an authority may answer: several times the largest tokens and discovery documents in use."""

DISCOVERY_UNDATED_S: Final = 300.0
"""How long a discovery document is used whose headers say nothing."""

DISCOVERY_S_MAX: Final = 86_400.0
"""How long a discovery document is used whatever its headers say: endpoints move, if seldom."""

CALLERS_SIZE_BYTES_MAX: Final = 1_048_576
"""A file of callers: some thousands of them, and what a mounted Kubernetes Secret may hold."""

CREDENTIALS_LOOK_INTERVAL_S: Final = 1.0
"""How often files of callers, certificates and tokens are looked at: a look is a few microseconds for each."""

STREAM_CREDENTIALS_LOOK_INTERVAL_S: Final = 10.0
"""How often open streams are judged again whose callers have tokens that end."""

STREAM_CREDENTIALS_SLICE: Final = 200
"""Streams judged at a time: a hash and a look-up each, below a millisecond together."""

JWT_VERIFIED_MAX: Final = 10_000
"""Tokens that a worker keeps as verified: callers at a time; half a KiB each."""

JWT_VERIFIED_S_MAX: Final = 300.0
"""How long a token counts as verified without being looked at again, if it does not end before."""

JWT_VERIFICATIONS_MAX: Final = 1_000
"""Tokens that are being verified at a time, or wait for the issuer's keys."""

JWT_KEYS_AGE_S_MAX: Final = 600.0
"""How long the issuer's keys are used before they are asked for again: a key that is taken back counts no longer."""

JWT_KEYS_ASK_INTERVAL_S: Final = 10.0
"""Between two requests for the issuer's keys: anybody can send a token that names an unknown one."""

JWT_CLOCK_SKEW_S_MAX: Final = 10
"""How far the issuer's clock may be from this machine's."""

DATA_KEY_FILE_SIZE_BYTES_MAX: Final = 65_536
"""The file of the keys that seal: some hundreds of them, with remarks."""

DATA_KEYS_DERIVED_MAX: Final = 1_000
"""Keys derived to open what is sealed, kept for each shard: one for each time its file was opened."""

RESEAL_ROWS_PER_COMMIT: Final = 64
"""Rows that `fastrunner data rekey` reads and writes at a time: of the largest size some hundreds of MB."""
