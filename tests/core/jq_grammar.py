"""Support: random jq programs and values from the whole grammar, for comparison with libjq.

Rules: everything follows from one seed. Programs are trees of text and holes, written with as few parentheses as the
grammar needs; holes ask for a kind of value (n number, s string, a array, o object, b boolean, x anything, p a path),
so that most programs get somewhere. What could run on without end is limited in the text. Left out on purpose: regular
expressions, the clock, the host, and literals that jq prints as they were written (`1.0`, `1E2`).
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from tests.core.jq_rules import RULES

HOLE = re.compile(r"<([nsaobxp])(\d+)([nsaobx]?)>")
QUERY, COMMA, ALTERNATIVE, UPDATE, OR, AND, COMPARE, SUM, PRODUCT, TRY, TERM = range(11)
UPDATES = ("=", "|=", "+=", "-=", "*=", "/=", "%=", "//=")
FORMATS = ("text", "json", "csv", "tsv", "html", "uri", "urid", "sh", "base64", "base64d")
NUMBERS = (
    "0", "1", "2", "3", "10", "0.5", "1.5", "2.75", "100", "1000000", "3.7", "9007199254740992",
    "123456789012345680000", "-1", "-2", "nan", "infinite", "-infinite", "-0", "(1e1000 + 0)",
    "(1e17 + 0)", "(1e3 + 0)", "13911860366432393",
)  # fmt: skip
STRINGS = (
    '""', '"a"', '"b"', '"ab"', '"a,b"', '"é"', '"😀x"', '" a "', '"1.5"', '"[1]"', '"a\\tb"', '"\\u00e9\\n"',
    '"<&\'>"', '"aXbX"', '"YWI="', '"ME======"', '"%41%zz"', '"2015-03-05T23:51:47Z"', '"nan"', '"x"',
)  # fmt: skip
NAMES = ("a", "b", "c", "k")


@dataclass(frozen=True)
class Node:
    """Program text with holes filled: parts are text or (node, lowest precedence that needs no parentheses)."""

    level: int
    parts: tuple["str | tuple[Node, int]", ...]

    def text(self) -> str:
        out = []
        for part in self.parts:
            if isinstance(part, str):
                out.append(part)
                continue
            inner = part[0].text()
            out.append(inner if part[0].level >= part[1] else f"({inner})")
        return "".join(out)

    def below(self) -> list["Node"]:
        return [part[0] for part in self.parts if not isinstance(part, str)]


@dataclass(frozen=True)
class Scope:
    """What is visible, and how the input at this place is thought to be."""

    dot: str = "x"
    depth: int = 4
    variables: tuple[str, ...] = ()
    # Name and whether each parameter is a value.
    functions: tuple[tuple[str, tuple[bool, ...]], ...] = ()
    labels: tuple[str, ...] = ()


Maker = Callable[[str, Scope], Node]


def leaf(text: str, level: int = TERM) -> Node:
    return Node(level, (text,))


class Grammar:
    """Draws programs and values."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.names = 0

    def program(self) -> Node:
        scope = Scope(depth=self.random.choice((2, 3, 3, 4, 4, 5)), dot=self.random.choice("xxxaaons"))
        return self.expression(self.random.choice("xxxnsaob"), scope)

    def fresh(self, prefix: str) -> str:
        self.names += 1
        return f"{prefix}{self.names % 5}" if self.random.random() < 0.9 else self.random.choice(("x", "y", "if"))

    def expression(self, want: str, scope: Scope) -> Node:
        """An expression that is likely to yield values of the kind wanted."""
        random = self.random
        if want != "p" and random.random() < 0.08:
            want = "x"
        if scope.depth <= 0 or random.random() < 0.07:
            return self.leaf(want, scope)
        if random.random() < 0.22:
            return self.construct(want, replace(scope, depth=scope.depth - 1))
        if want == "x":
            want = random.choice("nsaobpnsaobpx")
        for _ in range(6):
            needed, level, template = random.choice(RULES[want])
            if needed == "*" or needed == scope.dot or random.random() < 0.15:
                return self.fill(level, template, replace(scope, depth=scope.depth - 1))
        return self.leaf(want, scope)

    def fill(self, level: int, template: str, scope: Scope) -> Node:
        """A template with its holes filled."""
        parts: list[str | tuple[Node, int]] = []
        at = 0
        for hole in HOLE.finditer(template):
            parts.append(template[at : hole.start()])
            inner = replace(scope, dot=hole[3]) if hole[3] else scope
            parts.append((self.expression(hole[1], inner), int(hole[2])))
            at = hole.end()
        parts.append(template[at:])
        return Node(level, tuple(parts))

    def leaf(self, want: str, scope: Scope) -> Node:
        random = self.random
        roll = random.random()
        if want == "p":
            return leaf(
                random.choice((".", ".a", ".[0]", ".[]?", ".b.c", ".[-1]", ".[1:]", "..", ".a[1]", ".[:2]", ".c?"))
            )
        if roll < 0.3 and (scope.dot == want or want == "x"):
            return leaf(".")
        if roll < 0.5 and scope.variables:
            return leaf("$" + random.choice(scope.variables))
        if roll < 0.56:
            return leaf(
                random.choice(("empty", "error", "null", ".a?", ".[]?", "..", "$__loc__", '.["b"]?', "error(null)"))
            )
        if want in "xb" and roll < 0.7:
            return leaf(random.choice(("true", "false", "null")))
        if want in "s" or (want == "x" and roll < 0.8):
            return leaf(random.choice(STRINGS))
        if want == "a":
            return leaf(
                random.choice(("[]", "[1,2,3]", '["a","b"]', "[[1,2],[3]]", "[3,1,2,1]", "[.]", '[{"a":1},{"a":2}]'))
            )
        if want == "o":
            return leaf(random.choice(("{}", '{"a":1}', '{"b":{"c":2}}', "{a:[1,2],b:null}", '{"c":1,"a":"x"}')))
        text = random.choice(NUMBERS)
        return leaf(text, TRY if text.startswith("-") else TERM)

    # --- what binds names, and what has many forms ---

    def construct(self, want: str, scope: Scope) -> Node:
        makers: tuple[Maker, ...] = (
            self.binary, self.binary, self.pipe, self.comma, self.bind, self.fold, self.definition, self.call,
            self.update, self.update, self.condition, self.attempt, self.label, self.string, self.object, self.suffix,
        )  # fmt: skip
        if want == "p":
            makers = (
                self.pipe,
                self.comma,
                self.bind,
                self.condition,
                self.attempt,
                self.label,
                self.definition,
                self.call,
            )
        return self.random.choice(makers)(want, scope)

    def binary(self, want: str, scope: Scope) -> Node:
        random = self.random
        kind = want if want in "nsao" else random.choice("nsaox")
        sign, level, low, high = random.choice((
            ("+", SUM, SUM, PRODUCT), ("-", SUM, SUM, PRODUCT), ("*", PRODUCT, PRODUCT, TRY),
            ("/", PRODUCT, PRODUCT, TRY),
            ("%", PRODUCT, PRODUCT, TRY), ("//", ALTERNATIVE, UPDATE, ALTERNATIVE), ("and", AND, AND, COMPARE),
            ("or", OR, OR, AND), ("==", COMPARE, SUM, SUM), ("!=", COMPARE, SUM, SUM), ("<", COMPARE, SUM, SUM),
            ("<=", COMPARE, SUM, SUM), (">", COMPARE, SUM, SUM), (">=", COMPARE, SUM, SUM),
        ))  # fmt: skip
        left, right = self.expression(kind, scope), self.expression(kind, scope)
        space = random.choice((" ", " ", "" if sign not in ("and", "or", "//") else " "))
        return Node(level, ((left, low), f"{space or ' '}{sign}{space}", (right, high)))

    def pipe(self, want: str, scope: Scope) -> Node:
        middle = self.random.choice("xnsao")
        first = self.expression("p" if want == "p" else middle, scope)
        return Node(
            QUERY,
            (
                (first, COMMA),
                self.random.choice((" | ", "|")),
                (self.expression(want, replace(scope, dot=middle)), QUERY),
            ),
        )

    def comma(self, want: str, scope: Scope) -> Node:
        if self.random.random() < 0.2:
            return Node(QUERY, ((self.expression(want, scope), COMMA), ", ", (self.bind(want, scope), QUERY)))
        return Node(COMMA, ((self.expression(want, scope), COMMA), ", ", (self.expression(want, scope), ALTERNATIVE)))

    def pattern(self, scope: Scope, depth: int = 2) -> tuple[Node, list[str]]:
        """A pattern and the names it binds."""
        random = self.random
        roll = random.random()
        if depth == 0 or roll < 0.5:
            name = self.fresh("v")
            return leaf("$" + name), [name]
        parts: list[str | tuple[Node, int]] = ["[" if roll < 0.75 else "{"]
        names: list[str] = []
        for i in range(random.choice((1, 1, 2, 3))):
            parts.append(", " if i else "")
            if roll >= 0.75:
                self.pattern_key(parts, names, scope)
                if parts[-1] == "":
                    continue
            inner, bound = self.pattern(scope, depth - 1)
            parts.append((inner, TERM))
            names += bound
        parts.append("]" if roll < 0.75 else "}")
        return Node(TERM, tuple(parts)), names

    def pattern_key(self, parts: list["str | tuple[Node, int]"], names: list[str], scope: Scope) -> None:
        """A key of an object pattern; the last part is empty if no pattern follows it."""
        roll = self.random.random()
        name = self.random.choice(NAMES)
        if roll < 0.4:
            parts.append(f"{name}: ")
        elif roll < 0.55:
            parts.append(f'"{name}": ')
        elif roll < 0.75:
            names.append(name)
            parts.append(f"${name}")
            parts.append(self.random.choice(("", ": ")))
        elif roll < 0.85:
            parts.append(f'"{name}\\(""): ' if roll < 0.8 else f'@json "{name}": ')
        else:
            parts.extend(("(", (self.expression("s", replace(scope, depth=1)), QUERY), "): "))

    def patterns(self, scope: Scope) -> tuple[Node, list[str]]:
        """One pattern, at times with alternatives behind `?//`; an alternative's names are visible for all."""
        first, names = self.pattern(scope)
        parts: list[str | tuple[Node, int]] = [(first, TERM)]
        while self.random.random() < 0.18:
            other, bound = self.pattern(scope)
            names += bound
            parts += [" ?// ", (other, TERM)]
        return Node(TERM, tuple(parts)), names

    def bind(self, want: str, scope: Scope) -> Node:
        source = self.expression(self.random.choice("xaon"), scope)
        pattern, names = self.patterns(scope)
        body = self.expression(want, self.with_names(scope, names))
        return Node(QUERY, ((source, self.random.choice((TERM, SUM))), " as ", (pattern, TERM), " | ", (body, QUERY)))

    def with_names(self, scope: Scope, names: list[str]) -> Scope:
        return replace(scope, variables=(*scope.variables, *names))

    def fold(self, want: str, scope: Scope) -> Node:
        random = self.random
        source = self.expression(random.choice("xp"), replace(scope, depth=min(scope.depth, 2)))
        pattern, names = self.patterns(replace(scope, depth=1))
        # One initial value: with several, jq runs the source again on null.
        init = Node(TERM, ("first(", (self.expression(want, scope), QUERY), ")"))
        inner = replace(self.with_names(scope, names), dot=want if want in "nsao" else "x")
        each = random.random() < 0.5
        word = "foreach" if each else "reduce"
        update = self.expression(want, inner)
        head = (f"{word} ", (source, TERM), " as ", (pattern, TERM), " (", (init, QUERY), "; ", (update, QUERY))
        if each and random.random() < 0.5:
            return Node(TERM, (*head, "; ", (self.expression(want, inner), QUERY), ")"))
        return Node(TERM, (*head, ")"))

    def definition(self, want: str, scope: Scope) -> Node:
        """A function, at times recursive over its input's depth or a counter, and what uses it."""
        random = self.random
        values = tuple(random.random() < 0.4 for _ in range(random.choice((0, 0, 1, 1, 2))))
        name = random.choice(("f", "g", "h", "map", "length", "add"))
        parameters = [f"{'$' if value else ''}p{index}" for index, value in enumerate(values)]
        head = f"def {name}({'; '.join(parameters)}): " if parameters else f"def {name}: "
        inner = replace(
            scope,
            depth=min(scope.depth, 3),
            functions=(*scope.functions, *((f"p{index}", ()) for index in range(len(values)))),
            variables=(*scope.variables, *(f"p{index}" for index, value in enumerate(values) if value)),
        )
        body = self.expression(want, inner)
        if not values and random.random() < 0.3:
            body = Node(
                QUERY,
                ('if type == "array" then (.[]? | ', name, "), ", (body, ALTERNATIVE), " else ", (body, QUERY), " end"),
            )
        rest = self.expression(want, replace(scope, functions=(*scope.functions, (name, values))))
        return Node(QUERY, (head, (body, QUERY), "; ", (rest, QUERY)))

    def call(self, want: str, scope: Scope) -> Node:
        if not scope.functions:
            return self.definition(want, scope)
        name, values = self.random.choice(scope.functions)
        parts: list[str | tuple[Node, int]] = [name + "(" if values else name]
        for index in range(len(values)):
            parts += ["; " if index else "", (self.expression(want, scope), QUERY)]
        return Node(TERM, (*parts, ")") if values else tuple(parts))

    def update(self, want: str, scope: Scope) -> Node:
        random = self.random
        sign = random.choice(UPDATES)
        inner = replace(scope, dot="x") if sign == "|=" else scope
        right = self.expression(random.choice("xxnsaop"), inner)
        node = Node(UPDATE, ((self.expression("p", scope), OR), f" {sign} ", (right, OR)))
        if want in "nsab" and random.random() < 0.3:
            return Node(QUERY, ((node, ALTERNATIVE), " | ", (self.expression(want, scope), QUERY)))
        return node

    def condition(self, want: str, scope: Scope) -> Node:
        parts: list[str | tuple[Node, int]] = [
            "if ",
            (self.expression("b", scope), QUERY),
            " then ",
            (self.expression(want, scope), QUERY),
        ]
        while self.random.random() < 0.2:
            parts += [" elif ", (self.expression("b", scope), QUERY), " then ", (self.expression(want, scope), QUERY)]
        if self.random.random() < 0.7:
            parts += [" else ", (self.expression(want, scope), QUERY)]
        return Node(TERM, (*parts, " end"))

    def attempt(self, want: str, scope: Scope) -> Node:
        body = self.expression(want, scope)
        roll = self.random.random()
        if roll < 0.4:
            return Node(TERM, ((body, TERM), self.random.choice(("?", " ?", "??"))))
        if roll < 0.55:
            return Node(TRY, ("try ", (body, TRY)))
        return Node(TRY, ("try ", (body, TERM), " catch ", (self.expression(want, replace(scope, dot="s")), TRY)))

    def label(self, want: str, scope: Scope) -> Node:
        if scope.labels and self.random.random() < 0.5:
            name = self.random.choice(scope.labels)
            return Node(COMMA, ((self.expression(want, scope), COMMA), f", break ${name}"))
        name = self.random.choice(("out", "l", "v1"))
        return Node(
            QUERY, (f"label ${name} | ", (self.expression(want, replace(scope, labels=(*scope.labels, name))), QUERY))
        )

    def string(self, want: str, scope: Scope) -> Node:
        del want
        format_name = self.random.choice(FORMATS)
        parts: list[str | tuple[Node, int]] = [self.random.choice(("", "", f"@{format_name} ")) + '"']
        for _ in range(self.random.choice((1, 1, 2))):
            parts += [self.random.choice(("", "v=", "é ", "\\t")), "\\(", (self.expression("x", scope), QUERY), ")"]
        return Node(TERM, (*parts, self.random.choice(("", "!")) + '"'))

    def object(self, want: str, scope: Scope) -> Node:
        del want
        random = self.random
        parts: list[str | tuple[Node, int]] = []
        for index in range(random.choice((1, 1, 2, 3))):
            parts.append(", " if index else "{")
            name = random.choice(NAMES)
            roll = random.random()
            value = (self.expression("x", scope), UPDATE)
            if roll < 0.45:
                parts += [f"{name}: ", value]
            elif roll < 0.6:
                parts += ["(", (self.expression("s", scope), QUERY), "): ", value]
            elif roll < 0.7:
                parts += [random.choice((name, f'"{name}"', f'"{name}\\("x")"', "__loc__", f'@text "{name}"'))]
            elif roll < 0.8 and scope.variables:
                parts += ["$" + random.choice(scope.variables)]
            elif roll < 0.9:
                parts += [f'"{name}\\(', (self.expression("x", replace(scope, depth=1)), QUERY), ')": ', value]
            else:
                parts += [random.choice(("if", "and", "$__loc__", "reduce: 1 | 2", "def: -1"))]
        return Node(TERM, (*parts, "}"))

    def suffix(self, want: str, scope: Scope) -> Node:
        del want
        base = self.expression("aosx"[int(self.random.random() * 4)], scope)
        tail: Any = self.random.choice((
            (".a",), (".[\"b\"]",), ("[]",), ("[]?",), (".[0]",), ("[-1]",), (".b.c?",), ("[1:]",), (".\"a\"",),
            ("[", (self.expression("x", scope), QUERY), "]"), ("[", (self.expression("n", scope), QUERY), ":]"),
            ("[", (self.expression("n", scope), QUERY), ":", (self.expression("n", scope), QUERY), "]"), ("[:2]?",),
        ))  # fmt: skip
        return Node(TERM, ((base, TERM), *tail))

    # --- values ---

    def value(self, depth: int = 3) -> Any:
        random = self.random
        roll = random.random()
        if depth > 0 and roll < 0.35:
            if random.random() < 0.35:
                keys = ("a", "b", "c", "key", "value", "k", "name")
                shape = random.sample(keys, random.choice((1, 2, 2)))
                return [{key: self.value(depth - 2) for key in shape} for _ in range(random.choice((1, 2, 3, 5)))]
            return [self.value(depth - 1) for _ in range(random.choice((0, 1, 2, 3, 4)))]
        if depth > 0 and roll < 0.7:
            names = random.sample(("a", "b", "c", "k", "key", "é", "start", "end", "x y"), random.choice((0, 1, 2, 3)))
            return {key: self.value(depth - 1) for key in names}
        return random.choice((
            None, True, False, 0, 1, 2, 3, -1, 1.5, -2.25, 10, 100, 0.1, 1425599507, 9007199254740992,
            123456789012345680000, 1.25e-3,
            "", "a", "b", "ab", "a,b", "é", "😀", "x y", "1", "-1.5", "[1,2]", "A", "abcabc", "2015-03-05T23:51:47Z",
        ))  # fmt: skip

    def input_text(self) -> str:
        value: Any = self.value()
        if self.random.random() < 0.04:
            for _ in range(self.random.choice((10, 50, 200))):
                value = [value] if self.random.random() < 0.5 else {"a": value}
        return json.dumps(value, ensure_ascii=False)

    def mutated(self, text: str) -> str:
        """A program with a token dropped, doubled or moved: what is refused must be refused by both."""
        tokens = re.findall(r'\s+|\w+|\?//|[|/+*%-]?=|//|"(?:[^"\\]|\\.)*"|.', text)
        for _ in range(self.random.choice((1, 1, 2))):
            at = self.random.randrange(len(tokens))
            other = self.random.randrange(len(tokens))
            tokens[at : at + 1] = self.random.choice(
                ([], [tokens[at], tokens[at]], [tokens[other]], [tokens[other], tokens[at]])
            )
            if not tokens:
                return "."
        return "".join(tokens)
