"""`citybrain demo`: the whole service on one machine, without anything installed beside it."""

from __future__ import annotations

import shutil
import time
from datetime import datetime
from pathlib import Path

import click
import orjson
from rich.console import Console
from rich.table import Table

from agents.commands.console import cannot_write, fail, json_option, load_city, progress, say_json
from agents.demo import DemoError, DemoWorker, DispatchCentre, demo_topics, free_port, play
from agents.embedded_broker import EmbeddedBroker, EmbeddedBrokerError
from streams.error_model import read_error_model
from streams.evaluation import Scores, read_answers, read_truth, score
from streams.messages import Outcome
from streams.recording import write_recording
from streams.simulation import Simulation, simulate, truth_csv

_START = datetime.fromisoformat("2026-06-01T00:00:00+08:00")


@click.command(
    epilog="""\b
Example:
  citybrain demo --keep
"""
)
@click.option(
    "--city",
    default=Path("packs/sample"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="The city pack, a folder.",
)
@click.option(
    "--hours", default=24.0, show_default=True, type=click.FloatRange(0.1, 72), help="How long the day is, hours."
)
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="The same seed, the same day.")
@click.option(
    "--port",
    default=6066,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="The worker's port; another if it is taken.",
)
@click.option(
    "--out",
    default=Path("build/demo"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder for what is left: recording, truth, log, ClickHouse.",
)
@click.option("--keep", is_flag=True, help="Stay up afterwards, until Ctrl-C.")
@json_option
def demo(city: Path, hours: float, seed: int, port: int, out: Path, keep: bool, as_json: bool) -> None:
    """Play a simulated city day through an embedded broker, a real worker and an embedded ClickHouse.

    Four sources report; what comes out is scored against what truly happened.  Everything is left in --out.
    """
    pack = load_city(city)
    console = Console(stderr=True)
    try:
        shutil.rmtree(out / "clickhouse", ignore_errors=True)
        out.mkdir(parents=True, exist_ok=True)
        with progress("simulating a day", "events") as advance:
            day = simulate(pack, read_error_model(), seed=seed, start=_START, hours=hours, advance=advance)
        write_recording(out / "day.jsonl.gz", day.messages)
        (out / "truth.csv").write_text(truth_csv(day.truth), encoding="utf-8")
    except OSError as error:
        cannot_write(out, error, "choose another folder with --out")
    topics = demo_topics(pack.platform_topics)
    try:
        with EmbeddedBroker(topics) as broker:
            console.print(f"embedded broker at {broker.bootstrap}", highlight=False)
            with DemoWorker(city, broker.bootstrap, out, free_port(port)) as worker:
                with progress("starting the worker", ""):
                    worker.wait_until_ready()
                console.print(f"worker at {worker.url}, ClickHouse embedded in {out / 'clickhouse'}", highlight=False)
                with DispatchCentre(broker.bootstrap, topics) as centre:
                    seconds = _play(day, broker, worker)
                    if not keep:
                        worker.stop()
                _tell(day, centre, seconds, worker, out, keep, as_json)
                if keep:
                    console.print("still up; Ctrl-C ends it", highlight=False)
                    _wait_for_interrupt(worker)
    except (DemoError, EmbeddedBrokerError) as error:
        fail(str(error))


def _play(day: Simulation, broker: EmbeddedBroker, worker: DemoWorker) -> float:
    """Send the day and wait until all of it is decided and written; returns the seconds it took."""
    started = time.monotonic()
    with progress("four sources report", "messages", len(day.messages)) as advance:
        play(broker, day.messages, advance)
    elements = sum(day.elements.values())
    with progress("deciding", "elements", elements) as advance:
        shown = 0

        def show(read: int) -> None:
            nonlocal shown
            advance(read - shown)
            shown = read

        worker.wait_until_done(elements, show)
    return time.monotonic() - started


def _wait_for_interrupt(worker: DemoWorker) -> None:
    try:
        while True:
            worker.require_alive()
            time.sleep(1)
    except KeyboardInterrupt:
        return


def _scores(day: Simulation, centre: DispatchCentre) -> Scores:
    answers = read_answers(centre.assignments.values(), name="assignments")
    return score(answers, read_truth(truth_csv(day.truth).splitlines(keepends=True), name="truth"))


def _tell(
    day: Simulation, centre: DispatchCentre, seconds: float, worker: DemoWorker, out: Path, keep: bool, as_json: bool
) -> None:
    scores = _scores(day, centre)
    assignments = [orjson.loads(value) for value in centre.assignments.values()]
    outcomes = {outcome.value: 0 for outcome in Outcome}
    for assignment in assignments:
        outcomes[assignment["outcome"]] += 1
    elements = sum(day.elements.values())
    figures = {
        "elements": elements,
        "reports": len(assignments),
        "incidents": len(centre.incidents.keys() | centre.suspected.keys()),
        "suspected": len(centre.suspected.keys() - centre.incidents.keys()),
        "collapsed": scores.collapsed,
        "wrongly_merged": scores.wrongly_merged,
        "true_events_reported": day.events_reported,
        "outcomes": outcomes,
        "dead_letters": dict(sorted(centre.dead_letters.items())),
        "quiet_readings": elements - len(assignments) - centre.dead_letters.total(),
        "seconds": round(seconds, 1),
        "elements_per_second": round(elements / seconds),
    }
    if as_json:
        say_json(figures)
        return
    console = Console()
    table = Table(title="A day of four sources", title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    table.add_row("elements read", f"{elements:,}", "  messages; gateways send several in one")
    table.add_row("quiet readings", f"{figures['quiet_readings']:,}", "  measured, nothing raised")
    table.add_row("dead letters", f"{centre.dead_letters.total():,}", f"  {_counts(figures['dead_letters'])}")
    table.add_row("reports", f"{len(assignments):,}", f"  {_counts(outcomes)}")
    table.add_row(
        "incidents", f"{figures['incidents']:,}", f"  of {day.events_reported:,} true events that were reported"
    )
    table.add_row(
        "suspected", f"{figures['suspected']:,}", "  of these, and told to nobody: one camera's word is too little"
    )
    table.add_row("collapsed", _percent(scores.collapsed), "  share of reports that needed no incident of their own")
    table.add_row("wrongly merged", _percent(scores.wrongly_merged), "  share of true events that share an incident")
    table.add_row("rate", f"{figures['elements_per_second']:,}/s", f"  {elements:,} elements in {seconds:.1f} s")
    console.print(table)
    # The richest story: seen by several sources.
    richest = max((orjson.loads(value) for value in centre.incidents.values()), key=_richness, default=None)
    where = worker.url if keep else worker.dsn
    console.print("\nWhere to look", style="bold")
    if richest is not None:
        console.print(
            f"  why {richest['report_count']} reports of {len(richest['sources'])} sources are one incident:",
            highlight=False,
        )
        click.echo(f"    .venv/bin/citybrain explain {richest['incident_id']} --from {where}")
    if keep:
        console.print(f"  metrics   {worker.url}/metrics", highlight=False)
    console.print(f"  recording {out / 'day.jsonl.gz'}, truth {out / 'truth.csv'}, log {worker.log}", highlight=False)


def _richness(incident: dict[str, object]) -> tuple[int, int]:
    sources = incident["sources"]
    assert isinstance(sources, dict)
    return len(sources), -int(str(incident["report_count"]))


def _counts(counts: object) -> str:
    assert isinstance(counts, dict)
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
