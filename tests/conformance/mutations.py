"""Support of the differential test: seeded mutations of workflow documents.

Rules: a mutation is a small accident of the kinds authors have: a key dropped, renamed or added, a value of another
type or of another place, a list emptied, its items merged, doubled or dropped. All choices come from the generator
given, so a seed reproduces a document.
"""

import json
from random import Random
from typing import Any

Json = Any
Spot = tuple[Any, Any]

STRINGS = [
    "",
    " ",
    "x",
    "a b",
    "${ .a }",
    " ${ .a } ",
    "${ .a }\n",
    "${\n.a }",
    "${ .a } and ${ .b }",
    "${ .a",
    "${}",
    "${ }",
    "x${ .a }",
    ".a",
    ".[",
    "$context",
    "$input.a",
    "$output",
    "$nothing",
    "PT5S",
    "P1DT2H30.5M",
    "P",
    "PT",
    "P1DT",
    "pt5s",
    "PT5",
    "30s",
    "-PT5S",
    "P1Y2M3W4D",
    "P1.5D",
    "P1M1Y",
    "1.0.0",
    "1.0.3",
    "1.0",
    "v1.0.0",
    "01.0.0",
    "1.0.0-rc.1+build.5",
    "1.0.0-01",
    "2.0.0",
    "1.1.0",
    "a-b",
    "-a",
    "a_b",
    "a.b",
    "a" * 63,
    "a" * 64,
    "https://example.com/{id}",
    "https://example.com/a b",
    "https://example.com/{?q}",
    "https://example.com/{a,b}",
    "https://example.com/{pet.id}",
    "https://example.com/{}",
    "https://example.com/{a",
    "https://example.com/%zz",
    "https://example.com/%20",
    "https://example.com/${.a}",
    "https://example.com/<x>",
    "relative/path",
    "é",
    "it's",
    "/do/0/a",
    "/do/~2",
    "do/0",
    "2025-01-31T12:00:00Z",
    "2025-02-30T12:00:00Z",
    "2025-01-31T12:00:00.123+02:00",
    "2025-01-31 12:00:00Z",
    "2025-01-31T23:59:60Z",
    "2025-01-31T22:59:60-01:00",
    "2025-01-31",
    "0 0 * * *",
    "* * * *",
    "continue",
    "end",
    "exit",
    "nowhere",
    "http",
    "grpc",
    "jq",
    "js",
    "data",
    "raw",
    "response",
    "get",
    "always",
    "eventually",
    "never",
    "strict",
    "json",
    "avro",
]
VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    1.0,
    1.5,
    65535,
    65536,
    10**12,
    [],
    {},
    [{}],
    [[]],
    ["x"],
    [1, "x", None, ["${ .a }"]],
    [{"a": {}}],
    {"a": 1},
    {"seconds": 5},
    {"seconds": 1.0},
    {"seconds": 1.5},
    {"weeks": 1},
    {"after": {"seconds": 5}},
    {"use": "x"},
    {"set": {"a": 1}},
    {"x": {"set": {"a": 1}}},
    {"document": {"type": "object"}},
    {"document": {"type": "nothing"}},
    {"basic": {"username": "u", "password": "p"}},
    {"bearer": {"token": "t"}},
    {"with": {"type": "x"}},
    {"uri": "https://example.com"},
    {"endpoint": "https://example.com"},
]


class Mutator:
    """Mutates documents with names and parts of a corpus."""

    def __init__(self, corpus: list[Json], random: Random) -> None:
        self.random = random
        self.corpus = [json.dumps(document) for document in corpus]
        self.parts: dict[str, list[str]] = {}
        for document in corpus:
            for container, key in spots(document):
                if isinstance(key, str):
                    self.parts.setdefault(key, []).append(json.dumps(container[key]))
        self.keys = [
            *sorted(self.parts),
            "description",
            "weeks",
            "foo",
            "resource",
            "jitter",
            "scopes",
            "cron",
            "details",
        ]

    def document(self) -> Json:
        """One mutated document."""
        document = json.loads(self.random.choice(self.corpus))
        for _ in range(self.random.choice((1, 1, 1, 2, 2, 3))):
            places = spots(document)
            if places:
                container, key = self.random.choice(places)
                self.mutate(container, key)
        return document

    def mutate(self, container: Any, key: Any) -> None:
        """Changes one member of an object or one item of a list, or the list itself."""
        choices = [self.change, self.change, self.graft, self.drop]
        if isinstance(container, dict):
            choices += [self.rename, self.add, self.graft]
        else:
            choices += [self.empty, self.merge, self.double]
        if isinstance(container[key], (dict, list)) and self.random.random() < 0.5:
            choices = [self.add_within, self.empty_within]
        self.random.choice(choices)(container, key)

    def value(self) -> Json:
        """Some value, now and then one that stands in the corpus."""
        pick = self.random.random()
        if pick < 0.5:
            return self.random.choice(STRINGS)
        if pick < 0.85:
            return json.loads(json.dumps(self.random.choice(VALUES)))
        return self.part(self.random.choice(self.keys))

    def part(self, key: str) -> Json:
        """What stands under a key somewhere in the corpus."""
        return json.loads(self.random.choice(self.parts[key])) if key in self.parts else self.random.choice(VALUES)

    def typo(self, key: str) -> str:
        """A key with one character changed."""
        if not key:
            return "x"
        at = self.random.randrange(len(key))
        return self.random.choice((key[:at] + key[at + 1 :], key + "s", key[:at] + "x" + key[at:], key.swapcase()))

    def change(self, container: Any, key: Any) -> None:
        """Another value in the same place."""
        container[key] = self.value()

    def graft(self, container: Any, key: Any) -> None:
        """What the same or another key holds elsewhere."""
        container[key] = self.part(key if isinstance(key, str) and self.random.random() < 0.7 else self.some_key())

    def some_key(self) -> str:
        """A key of the corpus."""
        return self.random.choice(self.keys)

    def drop(self, container: Any, key: Any) -> None:
        """The member or item is gone."""
        del container[key]

    def rename(self, container: Any, key: Any) -> None:
        """The member stands under another key."""
        value = container.pop(key)
        container[self.typo(key) if self.random.random() < 0.4 else self.some_key()] = value

    def add(self, container: Any, key: Any) -> None:
        """One more member."""
        name = self.some_key()
        container[name] = self.part(name) if self.random.random() < 0.7 else self.value()

    def empty(self, container: Any, key: Any) -> None:
        """The list is empty."""
        container.clear()

    def merge(self, container: Any, key: Any) -> None:
        """Two items become one."""
        other = container[(key + 1) % len(container)]
        if isinstance(container[key], dict) and isinstance(other, dict):
            container[key] = {**container[key], **other, **({"x": {"set": {"a": 1}}} if len(container) == 1 else {})}

    def double(self, container: Any, key: Any) -> None:
        """An item stands twice."""
        container.insert(key, json.loads(json.dumps(container[key])))

    def add_within(self, container: Any, key: Any) -> None:
        """One more member or item of a nested container."""
        inner = container[key]
        if isinstance(inner, dict):
            self.add(inner, key)
        else:
            inner.append(self.value())

    def empty_within(self, container: Any, key: Any) -> None:
        """A nested container is empty."""
        container[key].clear()


def spots(value: Json) -> list[Spot]:
    """Every (container, key) of a document."""
    found: list[Spot] = []
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        found.append((value, key))
        found.extend(spots(member))
    return found
