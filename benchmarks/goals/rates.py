"""Support: how many executions per second are accepted: by calls and batches, by one worker and by two, over many
connections and over one."""

from benchmarks.goals.measuring import (
    BATCH_SIZE,
    Bound,
    Durable,
    Goal,
    Rounds,
    Run,
    client_cores,
    own_batches,
    own_calls,
    plural,
    server_cores,
)
from benchmarks.servers import empty, processor_s, runner

__all__ = ["accept", "placing", "scaling"]

_BATCHES_IN_FLIGHT = 2
"""For each worker: more would wait longer than an overloaded runner lets calls wait."""
_BATCHES_OF_TWO = 8
"""In flight where two workers are compared with one, for both: with four, two of them waited a fifth of the time for
their client."""
_ACCEPT = {1: Bound(2.0, 2.2), 2: Bound(1.2, 1.5)}


def accept(run: Run) -> list[Goal]:
    """Calls and batches against the empty method, from a client that has the cores that the servers leave."""
    goals = []
    for workers, bound in _ACCEPT.items():
        rounds = _accept_rounds(run, workers)
        for name, wanted, above, below, unit in (
            ("accept", bound, "runner", "empty on grpc.aio", "calls/s"),
            ("accept", Bound(0.5), "runner", "empty on our transport", "calls/s"),
            (f"batches of {BATCH_SIZE}", Bound(3.0), "batches", "empty on grpc.aio", "executions/s"),
        ):
            what = f"{name}, {plural(workers)}, own client, over {below}"
            goals.append(rounds.ratio(what, above, below, wanted, unit))
    return goals


def _accept_rounds(run: Run, workers: int) -> Rounds:
    cores, free = server_cores(workers), client_cores(workers)
    rounds = Rounds()
    with (
        runner(workers, *cores) as tree,
        empty("aio", workers, *cores) as aio,
        empty("queue", workers, *cores) as queue,
    ):
        durable = Durable(tree)
        targets = {"runner": tree.target, "empty on grpc.aio": aio.target, "empty on our transport": queue.target}
        for target in targets.values():
            warm = own_calls(run, target, run.calls // 5, cores=free)
            if target == tree.target:
                durable.finish(warm.count)
        for side in run.turns((*targets, "batches")):
            run.advance(f"accept, {plural(workers)}: {side}")
            if side == "batches":
                in_flight = _BATCHES_IN_FLIGHT * workers
                figures = own_batches(run, tree.target, 2 * run.calls, in_flight, cores=free)
                rounds.add(side, BATCH_SIZE * figures.rate_per_s, figures.errors_count)
                durable.finish(BATCH_SIZE * figures.count)
            else:
                figures = own_calls(run, targets[side], run.calls, cores=free)
                rounds.add(side, figures.rate_per_s, figures.errors_count)
                if side == "runner":
                    durable.finish(figures.count)
    return rounds


def scaling(run: Run) -> list[Goal]:
    """Two workers against one, in batches so that the client is not the limit; everybody may use all cores."""
    goal = _two_over_one(run, f"batches of {BATCH_SIZE}, 2 workers over 1", 16, batches=True, bound=Bound(1.7, 1.8))
    return [goal]


def placing(run: Run) -> list[Goal]:
    """Two workers against one when a single connection reaches only one of them; and how often work is handed on."""
    return [
        _two_over_one(run, "one connection, batches, 2 workers over 1", 1, batches=True, bound=Bound(1.6)),
        _two_over_one(run, "one connection, calls, 2 workers over 1", 1, batches=False, bound=Bound()),
        _two_over_one(run, "16 connections, calls, 2 workers over 1", 16, batches=False, bound=Bound()),
    ]


def _two_over_one(run: Run, name: str, connections: int, *, batches: bool, bound: Bound) -> Goal:
    rounds, costs = Rounds(), Rounds()
    handed_on = count = 0.0
    size = BATCH_SIZE if batches else 1
    # Each shard keeps so many: with the usual number one worker would begin to delete long before two.
    kept = {"FASTRUNNER_RETENTION_COUNT": "100000000"}
    with runner(1, **kept) as one, runner(2, **kept) as two:
        trees = {"1 worker": Durable(one), "2 workers": Durable(two)}
        for warm in (True, False):
            handed_on = -trees["2 workers"].forwards()
            for side in trees if warm else run.turns(trees):
                run.advance(f"{name}: {side}")
                target, pid = trees[side].tree.target, trees[side].tree.process.pid
                before_s = processor_s(pid)
                if batches:
                    # Some seconds: in half a one, how it begins and ends is a part of it.
                    figures = own_batches(run, target, 6 * run.calls, _BATCHES_OF_TWO, connections)
                else:
                    figures = own_calls(run, target, run.calls, connections)
                trees[side].finish(size * figures.count)
                if not warm:
                    rounds.add(side, size * figures.rate_per_s, figures.errors_count)
                    costs.add(side, 1e6 * (processor_s(pid) - before_s) / max(1, size * figures.count))
                    count += figures.count if side == "2 workers" else 0
        handed_on += trees["2 workers"].forwards()
    goal = rounds.ratio(name, "2 workers", "1 worker", bound, "executions/s")
    spent_us = f"{costs.median('2 workers'):.0f} over {costs.median('1 worker'):.0f} us"
    handed_on_percent = 100 * handed_on / max(1, count)
    goal.note = f"processor time of one {spent_us}; {handed_on_percent:.0f} % of requests handed on to the other worker"
    return goal
