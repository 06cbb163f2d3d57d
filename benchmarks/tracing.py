"""Support: what tracing costs an accept: real runners, off and on, loaded by turns.

    python -m benchmarks.tracing --trees 4 --rounds 30

Three runners of one worker are up at the same time: two without tracing, one that samples a part of the executions and
exports them to a collector, all on one core, the load and the collector on another one. A round loads each of them for
a fraction of a second, in another order each time, and compares what their process trees have taken of the processor
for each call: a machine whose speed wanders, wanders for all three. What a runner exports while another one is loaded
counts for it, too. The ratio of the two without tracing is what the measurement can tell apart. Two runners of one kind
differ for as long as they live, by how their memory came to lie: so all three are started anew several times.

The workflow is that of the goals of accepting, ten `set` tasks, accepted, executed and finished in one commit; with
`--tasks 1` it is the smallest there is. As each runner is loaded for a third of the time, it exports three times as
often for a call as one that is loaded all the time.
"""

import argparse
import itertools
import multiprocessing
import random
import statistics
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection

import grpc

from benchmarks import h2
from benchmarks.goals.measuring import TASKS
from benchmarks.loads import CALL, execution
from benchmarks.servers import processor_s, runner
from benchmarks.workflows import set_tasks
from tests.integration.runner_process import RunnerProcess

NAMES = ("off", "off again", "on")
RESAMPLES = 2_000
_LOAD_CORE, _RUNNERS_CORE = 0, 1
_IN_FLIGHT, _CONNECTIONS = 64, 8
_WARM_UP_CALLS = 4_000


def collect(ready: Connection) -> None:
    """A collector, in a process of its own: takes spans at once and forgets them."""
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages

    method = grpc.unary_unary_rpc_method_handler(
        lambda _request, _context: messages.ExportTraceServiceResponse(),
        request_deserializer=None,
        response_serializer=messages.ExportTraceServiceResponse.SerializeToString,
    )
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": method}),))
    ready.send(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    server.wait_for_termination()


@contextmanager
def collector() -> Iterator[int]:
    """A collector; its port."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=collect, args=(there,), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        process.terminate()
        process.join()


class Trees:
    """The three runners, alive together."""

    def __init__(self, runners: Sequence[RunnerProcess], number: int, tasks: int) -> None:
        self._runners = dict(zip(NAMES, runners, strict=True))
        self._tail = execution("", set_tasks(tasks)).tail.hex()
        self._number = number
        self._load_number = itertools.count()

    def load(self, name: str, calls: int) -> bool:
        """Has one of them accept so many; whether it has."""
        load = h2.Load(
            port=int(self._runners[name].target.rpartition(":")[2]),
            path=CALL,
            tail=self._tail,
            prefix=f"{self._number}x{next(self._load_number)}",
            connections=_CONNECTIONS,
            in_flight=_IN_FLIGHT,
            count=calls,
            cores=[_LOAD_CORE],
        )
        return h2.run(load).calls == calls

    def round(self, order: Sequence[str], calls: int) -> dict[str, float] | None:
        """Loads each; microseconds of the processor for a call of each, from here to the end of the round. None where
        one has refused calls, as it does on a machine that is busy with something else: those cost less."""
        before_s = self._processor_s()
        taken = [self.load(name, calls) for name in order]
        after_s = self._processor_s()
        return {name: (after_s[name] - before_s[name]) / calls * 1e6 for name in NAMES} if all(taken) else None

    def _processor_s(self) -> dict[str, float]:
        return {name: processor_s(each.process.pid) for name, each in self._runners.items()}

    def exported(self) -> float:
        """Spans that the collector has taken."""
        return self._runners["on"].metric('workflow_runner_spans_total{outcome="exported"}')


@contextmanager
def trees(number: int, port: int, ratio: str, tasks: int) -> Iterator[Trees]:
    """Three runners that are ready and warm; which is started first changes."""
    tracing = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": ratio,
    }
    with ExitStack() as stack:
        started = {}
        for at in range(len(NAMES)):
            name = NAMES[(at + number) % len(NAMES)]
            settings = tracing if name == "on" else {}
            started[name] = stack.enter_context(runner(1, _RUNNERS_CORE, PYTHONHASHSEED="0", **settings))
        found = Trees([started[name] for name in NAMES], number, tasks)
        for name in NAMES:
            found.load(name, _WARM_UP_CALLS)
        yield found


def interval(groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Within which the median of ratios lies in 95 of 100 cases, by drawing both runners and rounds again."""
    draw = random.Random(1)
    medians = sorted(
        statistics.median(
            ratio for group in draw.choices(groups, k=len(groups)) for ratio in draw.choices(group, k=len(group))
        )
        for _ in range(RESAMPLES)
    )
    return medians[RESAMPLES // 40], medians[-1 - RESAMPLES // 40]


def show(name: str, groups: Sequence[Sequence[float]]) -> None:
    """Prints what the ratios of all rounds come to, and of each set of runners."""
    ratios = [ratio for group in groups for ratio in group]
    quarters = statistics.quantiles(ratios, n=4)
    low, high = interval(groups)
    each = " ".join(f"{100 * (statistics.median(group) - 1):+.1f}" for group in groups)
    print(
        f"{name}: {100 * (quarters[1] - 1):+.2f} % in the median of {len(ratios)} rounds, quartiles "
        f"{100 * (quarters[0] - 1):+.2f} and {100 * (quarters[2] - 1):+.2f}, 95 % interval {100 * (low - 1):+.2f} to "
        f"{100 * (high - 1):+.2f}; by runners {each}"
    )


def measure(count: int, rounds: int, calls: int, ratio: str, tasks: int) -> None:
    """Prints the figures."""
    costs, controls = [], []
    orders = list(itertools.permutations(NAMES))
    with collector() as port:
        for number in range(count):
            with trees(number, port, ratio, tasks) as three:
                made = [three.round(orders[at % len(orders)], calls) for at in range(rounds)]
                exported = three.exported()
            found = [each for each in made if each is not None]
            took = {name: statistics.median(each[name] for each in found) for name in NAMES}
            shown = ", ".join(f"{name} {took_us:.1f} us" for name, took_us in took.items())
            print(
                f"runners {number + 1}: {shown}; {exported:.0f} spans exported, {len(made) - len(found)} rounds with "
                "refused calls left out",
                flush=True,
            )
            # Against each of them by itself: the mean of two that are now and then slow is above their median.
            costs.append([each["on"] / each[other] for each in found for other in ("off", "off again")])
            controls.append([each["off again"] / each["off"] for each in found])
    show(f"on, {ratio} sampled, against off", costs)
    show("off against off", controls)


def main(arguments: Sequence[str]) -> int:
    """See the module; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trees", type=int, default=4, help="how often the runners are started")
    parser.add_argument("--rounds", type=int, default=30, help="with each of them")
    parser.add_argument("--calls", type=int, default=1_000, help="to each runner in a round")
    parser.add_argument("--ratio", default="0.01", help="of the executions that are sampled")
    parser.add_argument("--tasks", type=int, default=TASKS, help="of the workflow")
    given = parser.parse_args(arguments)
    measure(given.trees, given.rounds, given.calls, given.ratio, given.tasks)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
