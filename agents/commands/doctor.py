"""`citybrain doctor`: what is wrong around a worker, and what to do."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agents.commands.answers import printable
from agents.commands.console import counted, json_option, say_json
from agents.commands.settings_options import settings_options
from agents.finding import Finding, State

if TYPE_CHECKING:
    from agents.doctor import Diagnosis

_MARKS = {
    State.OK: ("✓", "green"),
    State.WARNING: ("!", "yellow"),
    State.FAULT: ("✗", "red"),
    State.UNKNOWN: ("·", "dim"),
}


@click.command(
    short_help="Say what a worker lacks here, and what to do.",
    epilog="""\b
Example:
  CITYBRAIN_CALLER_KEY_FILE=caller.key citybrain doctor --city packs/sample --brokers kafka:9092
""",
)
@settings_options
@click.option(
    "--timeout-s",
    type=click.FloatRange(0.5, 60),
    default=5.0,
    show_default=True,
    help="How long one question to Kafka, ClickHouse or a worker may take.",
)
@click.option(
    "--min-free-mb",
    type=click.IntRange(0),
    default=200,
    show_default=True,
    help="Less room than this on a disk is a fault, less than five times it a warning.",
)
@json_option
def doctor(config: Path | None, timeout_s: float, min_free_mb: int, as_json: bool, **flags: Any) -> None:
    """Look at all that a worker needs, from where it runs and with its settings, and change nothing.

    The configuration and its key, the city pack, brokers, topics and consumer group, ClickHouse, the clocks, the
    worker's own port, disks, limits, libraries and the processor.  Each is ok, a warning, a fault, or was not looked
    at; each warning and fault comes with what to do.  Exits 1 if there is a fault.
    """
    console = Console(stderr=True)
    waiting = console.status("Looking …") if console.is_terminal and not as_json else nullcontext()
    with waiting:
        # Imported here: the clients of Kafka and ClickHouse take two seconds, which --help and wrong usage need not.
        from agents.doctor import Asked, examine

        diagnosis = examine(Asked(config, os.environ, flags, timeout_s, min_free_mb << 20))
    is_well = all(finding.state != State.FAULT for finding in diagnosis.findings)
    if as_json:
        say_json(_answer(diagnosis, is_well))
    else:
        _show(diagnosis)
    if not is_well:
        raise SystemExit(1)


def _answer(diagnosis: Diagnosis, is_well: bool) -> dict[str, Any]:
    return {
        "ok": is_well,
        "checks": [
            {"check": each.check, "state": each.state.value, "what": each.what, "remedy": each.remedy or None}
            for each in diagnosis.findings
        ],
        "settings": {name: {"value": value, "from": origin} for name, (value, origin) in diagnosis.settings.items()},
    }


# ---------------------------------------------------------------------------------------------------------- showing


def _show(diagnosis: Diagnosis) -> None:
    console = Console(markup=False, emoji=False, highlight=False)
    given = {name: row for name, row in diagnosis.settings.items() if row[1] != "default"}
    if console.is_terminal:
        _show_tables(console, diagnosis.findings, given)
    else:
        _show_lines(diagnosis.findings, given)


def _show_tables(console: Console, findings: tuple[Finding, ...], given: dict[str, tuple[str, str]]) -> None:
    if given:
        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
        for name, (value, origin) in given.items():
            table.add_row(Text(name, "bold"), Text(printable(value)), Text(f"from {printable(origin)}", "dim"))
        console.print(table)
        console.print()
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column()
    former = ""
    for finding in findings:
        mark, style = _MARKS[finding.state]
        told = Text(printable(finding.what), "dim" if finding.state == State.UNKNOWN else "")
        if finding.remedy:
            told.append(f"\n→ {printable(finding.remedy)}", "cyan")
        name = "" if finding.check == former else finding.check
        table.add_row(Text(mark, f"bold {style}"), Text(name, "bold"), told)
        former = finding.check
    console.print(table)
    console.print()
    worst = next((state for state in (State.FAULT, State.WARNING) if any(f.state == state for f in findings)), State.OK)
    console.print(Text(_summary(findings), f"bold {_MARKS[worst][1]}"))


def _show_lines(findings: tuple[Finding, ...], given: dict[str, tuple[str, str]]) -> None:
    """One line a finding and one a remedy, however long, for grep."""
    for name, (value, origin) in given.items():
        click.echo(f"setting  {name:13}  {printable(value)} (from {printable(origin)})")
    for finding in findings:
        click.echo(f"{finding.state.value:7}  {finding.check:13}  {printable(finding.what)}")
        if finding.remedy:
            click.echo(f"{'':7}  {'':13}  → {printable(finding.remedy)}")
    click.echo(_summary(findings))


def _summary(findings: tuple[Finding, ...]) -> str:
    states = Counter(finding.state for finding in findings)
    parts = []
    if states[State.FAULT]:
        parts.append(counted(states[State.FAULT], "fault"))
    if states[State.WARNING]:
        parts.append(counted(states[State.WARNING], "warning"))
    parts.append(f"{states[State.OK]} ok")
    if states[State.UNKNOWN]:
        parts.append(f"{states[State.UNKNOWN]} not looked at")
    return ", ".join(parts)
