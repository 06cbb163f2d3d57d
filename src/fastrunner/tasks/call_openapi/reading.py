"""Stage 5, tasks: what is made of an operation whatever version of OpenAPI it came from.

Rules: pure.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from fastrunner.tasks.call_http.content import MediaType
from fastrunner.tasks.call_openapi.document import malformed
from fastrunner.tasks.call_openapi.operation import Operation, Parameter
from fastrunner.tasks.call_openapi.styles import Style

__all__ = ["ACCEPT", "CONTENT_TYPE", "VARIABLE", "accepting", "finished"]

ACCEPT: Final = "Accept"
CONTENT_TYPE: Final = "Content-Type"
VARIABLE = re.compile(r"\{([^{}]+)\}")
"""What stands for a parameter in a path."""
_OTHERWISE_SENT: Final = frozenset(
    {"accept", "accept-encoding", "authorization", "content-type", "host", "idempotency-key", "user-agent"}
)
"""Headers that a request has without being told, or that follow from its policy: a task may give them, and need not."""
_MEDIA_TYPE = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+/[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PATH_SIZE_CHARS_MAX: Final = 8_192
"""What servers take of a path; documents' own are far shorter."""
_ACCEPTED_MAX: Final = 8
"""Media types in an Accept header: more say nothing that these do not."""


def accepting(media_types: Iterable[str]) -> str:
    """The Accept header of an operation that answers with these: JSON is what workflows work with."""
    texts = dict.fromkeys(each.partition(";")[0].strip().lower() for each in media_types)
    found = [each for each in texts if _MEDIA_TYPE.fullmatch(each)]
    json = [each for each in found if MediaType.parse(each).is_json]
    others = [f"{each};q=0.5" if json else each for each in found if each not in json]
    return ", ".join((json + others)[:_ACCEPTED_MAX])


def finished(operation: Operation) -> Operation:
    """An operation whose parameters are those of its path, also where the document forgets one, those of its security,
    and the headers that tasks may always give; with the names that tasks give each by. Raises RequestProblem."""
    if len(operation.path) > _PATH_SIZE_CHARS_MAX:
        raise malformed(f"a path has more than {_PATH_SIZE_CHARS_MAX} characters")
    names = dict.fromkeys(VARIABLE.findall(operation.path))
    parameters = [each for each in operation.parameters if each.location != "path" or each.name in names]
    known = {each.name for each in parameters if each.location == "path"}
    parameters += [Parameter(name, "path", Style("simple", False), True) for name in names if name not in known]
    counts = Counter(each.name for each in parameters)
    parameters = [
        replace(each, given_as=(f"{each.location}.{each.name}", each.name) if counts[each.name] > 1 else (each.name,))
        for each in parameters
    ]
    keys = {(one.key.location, one.key.name): one.key for each in operation.security for one in each if one.key}
    parameters = [
        replace(
            each,
            is_key=(each.location, each.name) in keys,
            is_required=each.is_required and not (each.location == "header" and each.name.lower() in _OTHERWISE_SENT),
        )
        for each in parameters
    ]
    for each in parameters:
        keys.pop((each.location, each.name), None)
    parameters += keys.values()
    # What chooses the form of a body and of an answer, whether the document has it or not.
    known = {each.name.lower() for each in parameters if each.location == "header"}
    chosen = (ACCEPT, CONTENT_TYPE) if operation.body is not None else (ACCEPT,)
    parameters += [
        Parameter(name, "header", Style("simple", False), given_as=(name,))
        for name in chosen
        if name.lower() not in known
    ]
    return replace(operation, parameters=tuple(parameters))
