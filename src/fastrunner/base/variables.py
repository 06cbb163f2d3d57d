"""Support: names of environment variables: what means nothing, or two things, to the runner, and what it hands on.

Rules: pure; a sentence names a variable and never its value, which may be a secret that was to have another name.
"""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

__all__ = ["SECRETS_PREFIX", "ambiguous_proxies", "is_engine_variable", "misspelt_variables", "unknown_variables"]

_PREFIXES: Final = ("FASTRUNNER_", "STIGMER_SERVICE_")
"""What has one is the runner's alone, but for what Kubernetes sets."""
SECRETS_PREFIX: Final = "FASTRUNNER_SECRET_"
"""What the names of secrets in the environment begin with."""
_SERVICE_LINK: Final = re.compile(
    r"(?:FASTRUNNER|STIGMER)(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_OF_ENGINES: Final = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "LANG", "TMPDIR", "DBUS_SESSION_BUS_ADDRESS", "REGISTRY_AUTH_FILE"}
    | {"SSL_CERT_FILE", "SSL_CERT_DIR", *_PROXIES, *(name.lower() for name in _PROXIES)}
)
_COMPARED_SIZE_CHARS_MIN: Final = 8
"""Shorter names are like too many others."""
_TWO_SLIPS_SIZE_CHARS_MIN: Final = 16
"""From here on a name with two slips is still like no other."""
_PREFIXES_OF_ENGINES: Final = ("CONTAINERS_", "CONTAINER_", "DOCKER_", "STORAGE_", "XDG_")


def unknown_variables(environment: Mapping[str, str], settings: Collection[str], told: Sequence[str]) -> list[str]:
    """A sentence for each variable that looks like ours and is none: it would be ignored in silence.

    `settings` are the variables of the runner; `told` those, and those of other commands, that users are told of.
    """
    known = {*settings, *told}
    sentences = []
    for name, value in sorted(environment.items()):
        prefix = _prefix_of(name)
        if not prefix or name.upper() in known or _is_service_link(name, value, settings):
            continue
        if name.startswith(SECRETS_PREFIX):
            refusal = _secret_refusal(name)
            sentences += [refusal] if refusal else []
            continue
        endings = [each.removeprefix(prefix) for each in told if each.startswith(prefix)]
        near = difflib.get_close_matches(name.upper().removeprefix(prefix), endings, n=1)
        meant = f"{prefix}{near[0]} is meant, perhaps" if near else "docs/configuration.md lists those there are"
        sentences.append(f"{name}: there is no such variable: {meant}; rename or unset it")
    return sentences


def misspelt_variables(environment: Iterable[str], settings: Collection[str], told: Sequence[str]) -> list[str]:
    """A sentence for each variable that differs by a slip from one of `told`, beginning as those of others do:
    one of them may read it."""
    known = {*settings, *told}
    sentences = []
    for name in sorted(environment):
        if _prefix_of(name) or name.upper() in known:
            continue
        near = next((each for each in told if _is_near(name.upper(), each)), None)
        if near is not None:
            sentences.append(f"{name} is not read here: {near} is meant, perhaps; if so, rename it")
    return sentences


def _prefix_of(name: str) -> str:
    return next((prefix for prefix in _PREFIXES if name.upper().startswith(prefix)), "")


def _is_near(name: str, meant: str) -> bool:
    """Whether a slip or two of who types make one of the other: a character too many, too few, another, or exchanged
    with its neighbour."""
    slips_max = 2 if len(meant) >= _TWO_SLIPS_SIZE_CHARS_MIN else 1
    if len(meant) < _COMPARED_SIZE_CHARS_MIN or abs(len(name) - len(meant)) > slips_max:
        return False
    letters, wanted = set(name), set(meant)
    # A slip brings one letter at most, and takes one: nearly all names end here, and each start compares all of them.
    if max(len(letters - wanted), len(wanted - letters)) > slips_max:
        return False
    before: list[int] = []
    row = list(range(len(meant) + 1))
    for at, character in enumerate(name):
        earlier, before, row = before, row, [at + 1]
        for there, other in enumerate(meant):
            slips = min(before[there] + (character != other), before[there + 1] + 1, row[there] + 1)
            if at and there and character == meant[there - 1] and name[at - 1] == other:
                slips = min(slips, earlier[there - 1] + 1)
            row.append(slips)
    return row[-1] <= slips_max


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
