"""Documents and inputs that benchmarks run: made up, but the same for the same seed."""

import random
from typing import Any

import orjson

__all__ = ["mixed_workflow", "orders"]

_CITIES = ("Berlin", "Lagos", "Lima", "Osaka", "Perth", "Quito")


def orders(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """So many orders of a shop, each with one to five lines."""
    chance = random.Random(seed)
    return [
        {
            "id": f"order-{number}",
            "city": chance.choice(_CITIES),
            "paid": chance.random() < 0.8,
            "lines": [
                {"sku": f"sku-{chance.randrange(500)}", "count": chance.randint(1, 9), "price": chance.randint(1, 200)}
                for _ in range(chance.randint(1, 5))
            ],
        }
        for number in range(count)
    ]


def mixed_workflow(tasks: int, seed: int = 1) -> str:
    """A JSON document of `tasks` tasks without effects, of several kinds; its input is a list of `orders`."""
    chance = random.Random(seed)
    makers = (_summing, _choosing, _looping, _guarded, _forking)
    return orjson.dumps(
        {
            "document": {"dsl": "1.0.3", "namespace": "bench", "name": f"mixed-{tasks}", "version": "1.0.0"},
            "input": {"from": "{orders: ., total: 0}"},
            "do": [{f"step{number}": chance.choice(makers)(chance)} for number in range(tasks)],
        }
    ).decode()


def _summing(chance: random.Random) -> dict[str, Any]:
    least = chance.randint(1, 100)
    total = f"[.orders[].lines[] | select(.price > {least}) | .price * .count] | add // 0"
    return {"set": {"orders": "${ .orders }", "total": f"${{ .total + ({total}) }}"}}


def _choosing(chance: random.Random) -> dict[str, Any]:
    return {"switch": [{"much": {"when": f".total > {chance.randint(1, 1000)}", "then": "continue"}}]}


def _looping(chance: random.Random) -> dict[str, Any]:
    add = {"set": {"orders": "${ .orders }", "total": "${ .total + ($order.lines | length) }"}}
    return {"for": {"each": "order", "in": f".orders[:{chance.randint(1, 10)}]"}, "do": [{"add": add}]}


def _guarded(chance: random.Random) -> dict[str, Any]:
    error = {"type": "https://example.com/errors/sold-out", "status": 409}
    guard = {"if": f".total > {chance.randint(1, 1000)}", "raise": {"error": error}}
    return {"try": [{"check": guard}], "catch": {"errors": {"with": {"status": 409}}}}


def _forking(chance: random.Random) -> dict[str, Any]:
    cities = [{city: {"set": {"orders": f'${{ [.orders[] | select(.city == "{city}")] | length }}'}}}
              for city in chance.sample(_CITIES, 3)]  # fmt: skip
    merged = "{orders: $input.orders, total: ($input.total + (map(.orders) | add))}"
    return {"fork": {"branches": cities}, "output": {"as": merged}}
