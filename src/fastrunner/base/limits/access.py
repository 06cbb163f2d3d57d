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
