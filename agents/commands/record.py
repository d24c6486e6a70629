"""``citybrain record``: Kafka into a recording."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import click

from agents.commands.addresses import brokers_option, prefix_option, require_broker
from agents.commands.console import cannot_write, counted, fail, json_option, progress, say_json
from sinks.recorder import RecorderError, TopicRecorder
from streams.recording import RecordedMessage, RecordingError, RecordingWriter


@click.command(
    epilog="""\b
Example:
  citybrain record --topics iot.readings,hotline.tickets --out monday.jsonl.gz --until-end
"""
)
@click.option("--topics", required=True, help="Topics without prefix, separated by commas.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The recording; .gz and .zst compress.")
@click.option("--until-end", is_flag=True, help="End when what is there now has been written.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="End after so many seconds.")
@click.option("--records", type=click.IntRange(1), help="End after so many records.")
@brokers_option
@prefix_option
@json_option
def record(
    topics: str,
    out: Path,
    until_end: bool,
    seconds: float | None,
    records: int | None,
    brokers: str,
    prefix: str,
    as_json: bool,
) -> None:
    """Write what is in the topics, from their start, into a recording.

    What is there at the start is written in the order of its timestamps, what arrives later as it comes.  Without
    --until-end, --seconds or --records it goes on until Ctrl-C, which finishes the file.  No consumer group is joined.
    """
    names = [name.strip() for name in topics.split(",") if name.strip()]
    if not names:
        raise click.BadParameter("names no topic", param_hint="'--topics'")
    require_broker(brokers)
    try:
        with (
            TopicRecorder(brokers, prefix, names) as recorder,
            RecordingWriter(out) as writer,
            progress("recording", "records") as advance,
            suppress(KeyboardInterrupt),
        ):

            def write(message: RecordedMessage) -> None:
                writer.write(message)
                advance(1)

            recorder.run(write, until_end=until_end, seconds=seconds, records=records)
    except (RecorderError, RecordingError) as error:
        fail(str(error))
    except OSError as error:
        cannot_write(out, error, "make room, or name another file with --out")
    done = recorder.recorded
    if as_json:
        summary = {
            "records": done.records,
            "tombstones": done.tombstones,
            "value_bytes": done.value_bytes,
            "seconds": round(done.seconds, 3),
            "by_topic": dict(sorted(done.by_topic.items())),
        }
        say_json(summary)
    else:
        found = ", ".join(f"{count:,} {topic}" for topic, count in sorted(done.by_topic.items()))
        left_out = f"; {counted(done.tombstones, 'record')} without a value left out" if done.tombstones else ""
        records_done = counted(done.records, "record")
        click.echo(f"{records_done} ({found or 'nothing'}) into {out} in {done.seconds:.1f} s{left_out}")
