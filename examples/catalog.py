"""Support: what the demo and the tests expect of each example: how many to run, with which input, ending how."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from examples.orders_service import CLIENT, FAILED_PAYMENTS, PAGES, SALES_PER_PAGE

__all__ = ["EXAMPLES", "Example", "secrets_for"]

Json = Any
_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Example:
    """One example workflow and what is known of its executions."""

    file: str
    """The document, in this folder."""
    count: int
    """How many executions the demo submits."""
    status: Literal["completed", "failed"]
    """How every execution ends."""
    input: Callable[[int, str], Json]
    """The input of the i-th execution, given the URL of the orders service."""
    check: Callable[[int, Json], bool]
    """Whether this is the right result of the i-th execution: its output, or its error if it failed."""
    paused: bool = False
    """Whether the demo pauses and resumes it on its way."""

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.file.removesuffix(".yaml")

    @property
    def path(self) -> Path:
        """Where the document lies."""
        return _FOLDER / self.file

    def document(self) -> str:
        """The document's text."""
        return self.path.read_text(encoding="utf-8")


def secrets_for(url: str) -> dict[str, Json]:
    """The secrets that the examples name, for the orders service at a URL."""
    client = {**CLIENT, "authentication": "client_secret_basic"}
    return {"payouts": {"authority": url, "grant": "client_credentials", "client": client}}


_TOPICS = ("billing", "api", "weather", "sdk", "api")
_TEAMS = ("billing", "engineering", "front desk", "engineering", "on-call")


def _ticket(i: int) -> Json:
    return {"id": i, "topic": _TOPICS[i % 5], "severity": 9 if i % 5 == 4 else i % 5}


def _is_order(i: int, output: Json) -> bool:
    order = f"order-{i}"
    # Exact, even if a worker was killed meanwhile: a request that is sent again carries its first key.
    attempts = FAILED_PAYMENTS + 1
    return bool(output == {"orderId": order, "status": "confirmed", "paymentId": f"pay-{order}", "attempts": attempts})


def _is_best_offer(i: int, output: Json) -> bool:
    expected = {"best": output["best"], "offers": 3, "item": f"item-{i}", "shops": ["north", "south", "west"]}
    return bool(100 <= output["best"]["price"] < 200 and output == expected)


def _is_bought(i: int, output: Json) -> bool:
    order = f"described-{i}"
    return bool(
        output == {"orderId": order, "paid": output["paid"], "paymentId": f"pay-{order}"} and output["paid"] > 0
    )


def _is_report(i: int, output: Json) -> bool:
    revenue = sum(page * 10 + n for page in range(1, PAGES + 1) for n in range(SALES_PER_PAGE))
    return bool(
        output == {"day": f"day-{i}", "pages": PAGES, "sales": PAGES * SALES_PER_PAGE, "revenue": revenue},
    )


EXAMPLES = (
    Example(
        file="order.yaml",
        count=36,
        status="completed",
        input=lambda i, url: {"service": url, "orderId": f"order-{i}", "amount": 10 + i},
        check=_is_order,
    ),
    Example(
        file="fan_out.yaml",
        count=36,
        status="completed",
        input=lambda i, url: {"service": url, "item": f"item-{i}"},
        check=_is_best_offer,
    ),
    Example(
        file="described_service.yaml",
        count=24,
        status="completed",
        input=lambda i, url: {"service": url, "orderId": f"described-{i}", "item": f"item-{i}"},
        check=_is_bought,
    ),
    Example(
        file="fastest_mirror.yaml",
        count=24,
        status="completed",
        input=lambda i, url: {"service": url, "package": f"package-{i}"},
        check=lambda i, output: output["mirror"] == "frankfurt" and output["package"] == f"package-{i}",
    ),
    Example(
        file="nightly_pages.yaml",
        count=24,
        status="completed",
        input=lambda i, url: {"service": url, "day": f"day-{i}"},
        check=_is_report,
    ),
    Example(
        file="approval_wait.yaml",
        count=24,
        status="completed",
        input=lambda i, url: {"service": url, "change": f"change-{i}"},
        check=lambda i, output: output["change"] == f"change-{i}" and output["status"] == "carried out",
        paused=True,
    ),
    Example(
        file="saga.yaml",
        count=36,
        status="completed",
        input=lambda i, url: {"service": url, "orderId": f"saga-{i}"},
        check=lambda i, output: bool(
            output == {"orderId": f"saga-{i}", "status": "undone", "because": 409, "undone": ["charge", "reservation"]}
        ),
    ),
    Example(
        file="meant_to_fail.yaml",
        count=24,
        status="failed",
        input=lambda i, _: {"amount": 2000 + i},
        check=lambda i, error: bool(
            error
            == {
                "type": "https://shop.example/errors/credit-limit",
                "status": 422,
                "title": "Credit Limit Exceeded",
                "detail": f"{2000 + i} is more than the limit of 1000",
                "instance": "/do/1/refuse",
            }
        ),
    ),
    Example(
        file="timeout_fallback.yaml",
        count=24,
        status="completed",
        input=lambda i, url: {"service": url, "price": i},
        check=lambda i, output: bool(output == {"price": 2 * i, "source": "yesterday"}),
    ),
    Example(
        file="validate_input.yaml",
        count=36,
        status="completed",
        input=lambda i, _: {"customer": {"name": f"Customer {i}", "email": f"C{i}@Shop.Example"}, "source": "web"},
        check=lambda i, output: bool(
            output == {"id": f"c{i}@shop.example", "name": f"Customer {i}", "greeting": f"Welcome, Customer {i}!"}
        ),
    ),
    Example(
        file="payout.yaml",
        count=24,
        status="completed",
        input=lambda i, url: {"service": url, "orderId": f"order-{i}", "amount": 10 + i},
        check=lambda i, output: bool(output == {"orderId": f"order-{i}", "paidOut": 10 + i}),
    ),
    Example(
        file="routing.yaml",
        count=50,
        status="completed",
        input=lambda i, _: _ticket(i),
        check=lambda i, output: bool(output == {"team": _TEAMS[i % 5], "ticket": _ticket(i)}),
    ),
    Example(
        file="reminders.yaml",
        count=24,
        status="completed",
        input=lambda i, url: {
            "service": url,
            "allowance": 2,
            "invoices": [{"number": f"{i}-{n}", "amount": 5 + 5 * n} for n in range(5)],
            "sent": [],
        },
        check=lambda i, output: bool(output == {"reminded": [f"{i}-1", f"{i}-2"], "open": 3}),
    ),
    Example(
        file="call_log.yaml",
        count=24,
        status="completed",
        input=lambda i, url: {"service": url, "item": f"item-{i}"},
        check=lambda _, output: bool(output == {"done": "reservation"}),
    ),
    Example(
        file="rehearsal.yaml",
        count=24,
        status="completed",
        input=lambda i, url: {"service": url, "orderId": f"rehearsal-{i}", "isRehearsal": True},
        check=lambda i, output: bool(
            output == {"paymentId": f"rehearsed-rehearsal-{i}", "amount": output["amount"]} and output["amount"] >= 100
        ),
    ),
)
