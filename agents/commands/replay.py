"""`citybrain replay`: the whole pipeline over a recording, in process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import click

from agents.commands.console import counted, fail, json_option, load_city, progress, say_json, show_bad_lines
from sinks.errors import SinkError
from sinks.files import FileSink
from streams.blocks import BlockError
from streams.privacy import TEST_KEY
from streams.recording import BadLine, RecordedMessage, RecordingError, read_recording
from streams.replay import Replay


@click.command(
    epilog="""\b
Example:
  citybrain replay monday.jsonl.gz --city packs/sample --out build/monday
"""
)
@click.argument("recordings", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RECORDING…")
@click.option("--city", "city", required=True, type=click.Path(path_type=Path), help="The city pack, a folder.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the results.")
@click.option(
    "--shards",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1024),
    help="Parts the work is split into; changes no result.",
)
@click.option(
    "--batch",
    default=10_000,
    show_default=True,
    type=click.IntRange(1, 1_000_000),
    help="Records taken at once; changes no result.",
)
@click.option(
    "--lateness-s",
    default=600,
    show_default=True,
    type=click.IntRange(0, 30 * 86_400),
    help="Further behind than this a report is late.",
)
@json_option
def replay(
    recordings: tuple[Path, ...], city: Path, out: Path, shards: int, batch: int, lateness_s: int, as_json: bool
) -> None:
    """Replay RECORDINGs, one after the other, as one stream, and write what came of them to --out.

    Writes assignments.jsonl (in order of decision), incidents.jsonl (as they stand in the end), dead-letters.jsonl and
    summary.json.  Where a recording cannot be read, the rest is replayed all the same, and the exit code is 1.  Callers
    are hashed under a stated test key.
    """
    for path in recordings:
        # Told before hours of replay and not after them.
        if not path.exists():
            fail(f"{path}: no such recording; check the path")
    pack = load_city(city)
    bad_lines: list[BadLine] = []
    started = time.perf_counter()
    try:
        with FileSink(out) as sink:
            run = Replay(pack, TEST_KEY, shards=shards, lateness_s=lateness_s)
            with progress("replaying", "records") as advance:
                messages = chain.from_iterable(read_recording(path) for path in recordings)
                for chunk in _chunks(messages, batch, bad_lines):
                    assignments, dead_letters = run.take(chunk)
                    sink.write(assignments, [], [letter.record() for letter in dead_letters])
                    advance(len(chunk))
            incidents = run.incidents()
            sink.write([], incidents, [])
            summary = run.counts.summary(len(incidents), time.perf_counter() - started)
            summary["bad_lines"] = len(bad_lines)
            summary["city"] = pack.code
            summary["pack_version"] = pack.version
            summary["datums"] = [{**one._asdict(), "offset_m": one.offset_m} for one in run.datum_findings]
            sink.close(summary)
    except (RecordingError, BlockError, SinkError) as error:
        fail(str(error))
    if as_json:
        say_json(summary)
    else:
        dead = sum(summary["dead_letters"].values())
        click.echo(
            f"{counted(summary['records'], 'record')}, {counted(summary['elements'], 'element')}: "
            f"{counted(summary['reports'], 'report')} ({counted(summary['repeats'], 'repeat')}, "
            f"{counted(summary['corrections'], 'correction')}), "
            f"{counted(dead, 'dead letter')}, {counted(summary['quiet_readings'], 'quiet reading')}\n"
            f"{counted(summary['incidents'], 'incident')} ({summary['collapsed']:.1%} collapsed) "
            f"in {summary['seconds']:.1f} s, {summary['reports_per_second']:,} reports/s; results in {out}"
        )
        for finding in run.datum_findings:
            click.echo(f"datum: {finding}")
        if summary["ignored_records"]:
            click.echo(f"ignored, not a source's topic: {summary['ignored_records']}", err=True)
    if bad_lines:
        show_bad_lines(bad_lines)
        fail(f"{counted(len(bad_lines), 'place')} could not be read; everything else was replayed into {out}")


def _chunks(
    messages: Iterator[RecordedMessage | BadLine], size: int, bad_lines: list[BadLine]
) -> Iterator[list[RecordedMessage]]:
    while chunk := list(islice(messages, size)):
        good = [message for message in chunk if isinstance(message, RecordedMessage)]
        bad_lines.extend(message for message in chunk if isinstance(message, BadLine))
        if good:
            yield good
