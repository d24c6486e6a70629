"""``citybrain produce``: a recording into Kafka."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import click

from agents.commands.addresses import brokers_option, prefix_option, require_broker
from agents.commands.console import counted, fail, json_option, load_city, progress, say_json, show_bad_lines
from sinks.playback import LagLimit, PlaybackError, produce_recording, shift_to, shift_to_now_ms, with_timestamps
from streams.platform_records import record_times
from streams.recording import BadLine, RecordedMessage, RecordingError, read_recording

_BYTES_OF_UNIT = {"kb": 1000, "mb": 1_000_000}


class _Speed(click.ParamType):
    name = "speed"

    def convert(self, value: object, param: click.Parameter | None, context: click.Context | None) -> float | None:
        if value == "max":
            return None
        try:
            speed = float(str(value))
        except ValueError:
            speed = 0.0
        if not 0 < speed < float("inf"):
            self.fail(f"{value!r} is not a speed; write a number above 0, as 60 for an hour a minute, or max", param)
        return speed


class _Lag(click.ParamType):
    name = "lag"

    def convert(self, value: object, param: click.Parameter | None, context: click.Context | None) -> tuple[str, int]:
        match = re.fullmatch(r"(\d+)\s*(kB|MB)?", str(value), re.IGNORECASE)
        if match is None or int(match[1]) == 0:
            self.fail(f"{value!r} is not a lag; write a number of records, as 5000, or of bytes, as 2MB", param)
        if match[2]:
            return "max_bytes", int(match[1]) * _BYTES_OF_UNIT[match[2].lower()]
        return "max_records", int(match[1])


@click.command(
    epilog="""\b
Example:
  citybrain produce monday.jsonl.gz --speed 60 --shift-to-now --brokers localhost:9092
"""
)
@click.argument("recordings", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RECORDING…")
@click.option("--speed", default="max", show_default=True, type=_Speed(), help="Multiple of its own pace, or max.")
@click.option(
    "--shift-to-now",
    is_flag=True,
    help="Move all times, also those in the values, so that the newest record is of now.  (Kafka refuses the future.)",
)
@brokers_option
@prefix_option
@click.option(
    "--city",
    type=click.Path(path_type=Path),
    help="The city pack: how its platforms say their times, where the recording has records of platforms.",
)
@click.option(
    "--max-lag",
    type=_Lag(),
    help="Wait while --group is further behind in any partition: records (5000) or bytes (2MB).",
)
@click.option("--group", help="The consumer group that --max-lag waits for.")
@json_option
def produce(
    recordings: tuple[Path, ...],
    speed: float | None,
    shift_to_now: bool,
    brokers: str,
    prefix: str,
    city: Path | None,
    max_lag: tuple[str, int] | None,
    group: str | None,
    as_json: bool,
) -> None:
    """Play RECORDINGs, one after the other, into Kafka.

    Timestamps are kept; a record without one gets the newest `time` in its value, as in a replay.  A record keeps its
    partition where there is such a one; else its key decides.  What cannot be read or is refused is told and counted,
    the rest is sent all the same, and the exit code is 1.
    """
    if (max_lag is None) != (group is None):
        raise click.UsageError("--max-lag and --group go together")
    platforms = None if city is None else record_times(load_city(city))
    require_broker(brokers)
    bad_lines: list[BadLine] = []
    now_ms = time.time_ns() // 1_000_000
    limit = None if max_lag is None or group is None else LagLimit(brokers, group, **{max_lag[0]: max_lag[1]})
    try:
        for path in recordings:
            next(read_recording(path), None)  # that it can be opened at all is told before anything is sent
        messages = _messages(recordings, bad_lines)
        if shift_to_now:
            shift_ms = shift_to_now_ms(_messages(recordings, []), now_ms, platforms)
            messages = shift_to(messages, shift_ms, platforms)
        with progress("producing", "records") as advance:
            played = produce_recording(
                with_timestamps(messages, now_ms, platforms),
                brokers,
                prefix,
                speed=speed,
                pause=limit,
                delivered=None if limit is None else limit.delivered,
                sent=advance,
            )
    except (RecordingError, PlaybackError) as error:
        fail(str(error))
    finally:
        if limit is not None:
            limit.close()

    show_bad_lines(bad_lines)
    for example in played.examples:
        click.echo(example, err=True)
    refused = played.failures.total()
    if as_json:
        summary = {
            "records": played.records,
            "delivered": played.delivered,
            "refused": dict(sorted(played.failures.items())),
            "bad_lines": len(bad_lines),
            "value_bytes": played.value_bytes,
            "seconds": round(played.seconds, 3),
            "by_topic": dict(sorted(played.by_topic.items())),
        }
        say_json(summary)
    else:
        topics = ", ".join(f"{count:,} {topic}" for topic, count in sorted(played.by_topic.items()))
        click.echo(
            f"{played.delivered:,} of {counted(played.records, 'record')} delivered to {brokers} "
            f"in {played.seconds:.1f} s ({topics or 'nothing to send'})"
        )
    if refused or bad_lines:
        bad = f"{counted(len(bad_lines), 'place')} could not be read"
        fail(f"{counted(refused, 'record')} refused, {bad}; everything else was sent to {brokers}")


def _messages(recordings: tuple[Path, ...], bad_lines: list[BadLine]) -> Iterator[RecordedMessage]:
    for path in recordings:
        for message in read_recording(path):
            if isinstance(message, BadLine):
                bad_lines.append(message)
            else:
                yield message
