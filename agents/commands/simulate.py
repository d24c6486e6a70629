"""`citybrain simulate`: a city day with known truth."""

from __future__ import annotations

import gzip
from collections import Counter
from datetime import datetime
from pathlib import Path

import click

from agents.commands.console import (
    cannot_read,
    cannot_write,
    counted,
    fail,
    json_option,
    load_city,
    progress,
    say_json,
)
from streams.error_model import SCENARIOS, ErrorModel, ErrorModelError, read_error_model, shipped_text
from streams.messages import Action, Outcome, Reason, Status
from streams.recording import RecordingError, write_recording
from streams.rehearsal import rehearse
from streams.replay import Replay
from streams.simulation import Simulation, truth_csv
from streams.simulation import simulate as draw

_MAX_HOURS = 31 * 24


def _start(_context: click.Context, _parameter: click.Parameter, text: str) -> datetime:
    try:
        start = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no time; write it as 2026-06-01T00:00:00+08:00") from error
    if start.utcoffset() is None:
        raise click.BadParameter(f"{text!r} has no offset; write it as 2026-06-01T00:00:00+08:00")
    return start


@click.command(
    epilog="""\b
Example:
  citybrain simulate --city packs/sample --hours 24 --seed 7 --out day.jsonl.gz --truth day-truth.csv
  citybrain simulate --city packs/sample --hours 168 --errors normal-week --feedback --out week.jsonl.zst --truth w.csv
"""
)
@click.option("--city", required=True, type=click.Path(path_type=Path), help="The city pack, a folder.")
@click.option(
    "--hours",
    default=24.0,
    show_default=True,
    type=click.FloatRange(0.1, _MAX_HOURS),
    help="How long a time, hours.",
)
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="The same seed, the same bytes.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The recording: .jsonl, .jsonl.gz or .zst.")
@click.option("--truth", required=True, type=click.Path(path_type=Path), help="The truth: .csv or .csv.gz.")
@click.option(
    "--errors",
    type=click.Path(path_type=Path),
    help=f"TOML laid over the shipped error model (streams/error_model.toml), key by key; or {' or '.join(SCENARIOS)}.",
)
@click.option(
    "--feedback",
    is_flag=True,
    help="Dispatch centres work on the incidents that come of it; what they say is recorded, what they repair is over.",
)
@click.option(
    "--rate", default=1.0, show_default=True, type=click.FloatRange(0.001, 1000), help="Multiplies events and readings."
)
@click.option(
    "--start",
    default="2026-06-01T00:00:00+08:00",
    show_default=True,
    callback=_start,
    help="When it begins; its offset is the local time of the day's waves.",
)
@json_option
def simulate(
    city: Path,
    hours: float,
    seed: int,
    out: Path,
    truth: Path,
    errors: Path | None,
    feedback: bool,
    rate: float,
    start: datetime,
    as_json: bool,
) -> None:
    """Simulate what the four sources of a city report in some hours, and write down what is true of it.

    The truth has a row for each report: its event (cluster_id; a false alarm is one of its own, a consultation has
    none), whether it is a duplicate, and of which report.  `citybrain evaluate` scores a replay against it.

    With --feedback a report of what a crew had only said to have repaired is one of the same event; what comes back
    after a true repair is another.
    """
    pack = load_city(city)
    model = _model(errors)
    expected = round(model.events.per_day * rate * hours / 24)
    service: Replay | None = None
    try:
        with progress("simulating", "events", expected) as advance:
            if feedback:
                rehearsal = rehearse(pack, model, seed=seed, start=start, hours=hours, rate=rate, advance=advance)
                result, service = rehearsal.simulation, rehearsal.service
            else:
                result = draw(pack, model, seed=seed, start=start, hours=hours, rate=rate, advance=advance)
        write_recording(out, result.messages)
        _write_truth(truth, truth_csv(result.truth))
    except (RecordingError, ValueError) as error:
        fail(str(error))
    except OSError as error:
        cannot_write(out, error)
    figures = _figures(result)
    if service is not None:
        figures["service"] = _service_figures(service)
    if as_json:
        say_json(figures)
        return
    reports = sum(result.reports.values())
    by_source = ", ".join(f"{source} {count:,}" for source, count in result.reports.items())
    sent = result.sent
    click.echo(
        f"{len(result.messages):,} messages with {sum(result.elements.values()):,} elements of sources: {reports:,} "
        f"reports ({by_source}), {sent.repeats:,} repeats, {sent.amended:,} amended, "
        f"{sum(sent.broken.values()):,} broken, {sent.quiet:,} quiet\n"
        f"{result.events:,} events, {result.events_reported:,} of them reported, "
        f"{counted(len(result.storms), 'storm')}; recording in {out}, truth in {truth}"
    )
    if service is not None:
        for name, counts in _service_figures(service).items():
            click.echo(f"{name}: " + ", ".join(f"{word} {count:,}" for word, count in counts.items()))


def _model(path: Path | None) -> ErrorModel:
    try:
        if path is None:
            return read_error_model()
        if str(path) in SCENARIOS:
            return read_error_model(shipped_text(SCENARIOS[str(path)]), name=str(path))
        return read_error_model(path.read_text(encoding="utf-8"), name=str(path))
    except ErrorModelError as error:
        fail(str(error))
    except UnicodeDecodeError as error:
        fail(f"{path}: not UTF-8 ({error.reason}); save the error model as UTF-8")
    except OSError as error:
        cannot_read(path or "the error model", error)


def _write_truth(path: Path, text: str) -> None:
    data = text.encode()
    # No time and no name in the header of the .gz, or the same seed would not give the same bytes.
    path.write_bytes(gzip.compress(data, 6, mtime=0) if path.suffix == ".gz" else data)


def _figures(result: Simulation) -> dict[str, object]:
    sent = result.sent
    return {
        "messages": len(result.messages),
        "elements": dict(sent.elements),
        "reports": dict(sent.reports),
        "reports_by_rule": sent.by_rule,
        "duplicates": sum(row.is_duplicate for row in sent.truth),
        "repeats": sent.repeats,
        "amended": sent.amended,
        "quiet_readings": sent.quiet,
        "broken": dict(sorted(sent.broken.items())),
        "errors": dict(sorted(sent.errors.items())),
        "events": result.events,
        "events_reported": result.events_reported,
        "storms": len(result.storms),
    }


def _service_figures(service: Replay) -> dict[str, dict[str, int]]:
    """What the service made of it, each word counted, those that did not occur too."""
    counts = service.counts
    statuses = Counter(incident.status for incident in service.incidents())
    return {
        "outcomes": {outcome.value: counts.outcomes[outcome.value] for outcome in Outcome},
        "dead letters": {reason.value: counts.dead_letters[reason.value] for reason in Reason},
        "incidents": {status.value: statuses[status.value] for status in Status},
        "feedback": {**{action.value: counts.feedback[action.value] for action in Action},
                     "repeated": counts.feedback_repeats},
    }  # fmt: skip
