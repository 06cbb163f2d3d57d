"""Support: many seeds from the command line, with what was injected and what was found."""

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
from rich.progress import track

from fastrunner.base.clock import monotonic_s
from tests.integration.engines import folder
from tests.simulation.run import Verdict, simulate


@click.command(help="Simulate a runner of one or several workers under faults, seed by seed.")
@click.option("--seeds", default=1_000, show_default=True, help="How many seeds.")
@click.option("--first", default=0, show_default=True, help="The first one.")
def main(seeds: int, first: int) -> None:
    begun_s = monotonic_s()
    verdicts = list(_verdicts(first, seeds))
    minutes = (monotonic_s() - begun_s) / 60
    bad = [verdict for verdict in verdicts if verdict.violations]
    for verdict in bad:
        for violation in verdict.violations:
            click.echo(f"seed {verdict.seed}: {violation}")
    faults = sum((verdict.faults for verdict in verdicts), Counter[str]())
    click.echo(
        f"{len(verdicts)} seeds, {len(verdicts) / minutes:.0f} a minute; {sum(v.lives for v in verdicts)} lives, "
        f"{sum(v.executions for v in verdicts)} executions, {sum(v.events for v in verdicts)} events, "
        f"{sum(v.resent for v in verdicts)} of them sent again; {len(bad)} seeds with violations"
    )
    effects = sum((verdict.effects for verdict in verdicts), Counter[str]())
    click.echo("effects: " + ", ".join(f"{kind} {count}" for kind, count in sorted(effects.items())))
    cloud_events = sum((verdict.cloud_events for verdict in verdicts), Counter[str]())
    click.echo("CloudEvents: " + ", ".join(f"{what} {count}" for what, count in cloud_events.items()))
    for fault, count in faults.most_common():
        click.echo(f"  {count:8} {fault}")
    if bad:
        raise SystemExit(1)


def _verdicts(first: int, seeds: int) -> Iterator[Verdict]:
    base = Path(tempfile.mkdtemp(dir=folder()))
    for seed in track(range(first, first + seeds), description="simulating"):
        yield simulate(seed, base / str(seed))


if __name__ == "__main__":
    main()
