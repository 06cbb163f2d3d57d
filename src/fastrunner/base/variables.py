"""Support: names of environment variables: what means nothing, or two things, to the runner, and what it hands on.

Rules: pure; a sentence names a variable and never its value, which may be a secret that was to have another name.
"""

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final

__all__ = ["SECRETS_PREFIX", "ambiguous_proxies", "is_engine_variable", "unknown_variables"]

_PREFIX: Final = "FASTRUNNER_"
SECRETS_PREFIX: Final = "FASTRUNNER_SECRET_"
"""What the names of secrets in the environment begin with."""
_SERVICE_LINK: Final = re.compile(
    r"FASTRUNNER(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_OF_ENGINES: Final = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "LANG", "TMPDIR", "DBUS_SESSION_BUS_ADDRESS", "REGISTRY_AUTH_FILE"}
    | {"SSL_CERT_FILE", "SSL_CERT_DIR", *_PROXIES, *(name.lower() for name in _PROXIES)}
)
_PREFIXES_OF_ENGINES: Final = ("CONTAINERS_", "CONTAINER_", "DOCKER_", "STORAGE_", "XDG_")


def unknown_variables(environment: Mapping[str, str], settings: Collection[str], told: Sequence[str]) -> list[str]:
    """A sentence for each variable that looks like ours and is none: it would be ignored in silence.

    `settings` are the variables of the runner; `told` those, and those of other commands, that users are told of.
    """
    known = {*settings, *told}
    endings = [name.removeprefix(_PREFIX) for name in told if name.startswith(_PREFIX)]
    sentences = []
    for name, value in sorted(environment.items()):
        if not name.upper().startswith(_PREFIX) or name.upper() in known or _is_service_link(name, value, settings):
            continue
        if name.startswith(SECRETS_PREFIX):
            refusal = _secret_refusal(name)
            sentences += [refusal] if refusal else []
            continue
        near = difflib.get_close_matches(name.upper().removeprefix(_PREFIX), endings, n=1)
        meant = f"{_PREFIX}{near[0]} is meant, perhaps" if near else "docs/configuration.md lists those there are"
        sentences.append(f"{name}: there is no such variable: {meant}; rename or unset it")
    return sentences


def ambiguous_proxies(environment: Mapping[str, str]) -> list[str]:
    """A sentence for each variable that is set in capitals and in small letters: programs disagree on which counts."""
    sentences = []
    for name in _PROXIES:
        capital, small = environment.get(name), environment.get(name.lower())
        if capital and small and capital != small:
            sentences.append(f"{name} and {name.lower()} are both set, and differ: set both to the same, or unset one")
    return sentences


def is_engine_variable(name: str) -> bool:
    """Whether the client of a container engine reads it: where its files, its server, its images are."""
    return name in _OF_ENGINES or name.startswith(_PREFIXES_OF_ENGINES)


def _secret_refusal(name: str) -> str:
    """Why a variable is no secret; empty if it is one."""
    if name == SECRETS_PREFIX:
        return f"{name}: a secret needs a name: {SECRETS_PREFIX}<NAME>"
    if name == f"{SECRETS_PREFIX}DIR":
        return (
            f"{name}: this would be a secret called DIR; FASTRUNNER_SECRETS_DIR is meant, perhaps; rename or unset it"
        )
    return ""


def _is_service_link(name: str, value: str, settings: Collection[str]) -> bool:
    """Whether Kubernetes set it, as it does in every pod of a namespace with a service called `fastrunner`."""
    if name.endswith("_PORT") and "://" in value:
        return name.upper() not in settings
    return _SERVICE_LINK.fullmatch(name) is not None
