"""`citybrain worker`: the Faust worker against Kafka and ClickHouse."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from agents.commands.addresses import BROKERS_HELP, PREFIX_HELP, require_broker
from agents.commands.console import fail, load_city
from agents.settings import Settings, SettingsError, read_settings
from streams.privacy import TEST_KEY

_CHATTY = {
    # What they have to say of an unreachable ClickHouse we say in one line, and of a late timer nobody can act.
    "urllib3": logging.ERROR,
    "clickhouse_connect": logging.CRITICAL,
    "mode.timers": logging.ERROR,
    "faust": logging.WARNING,
    "mode": logging.WARNING,
    "aiokafka": logging.WARNING,
    "agents.batch_transport": logging.WARNING,
}
"""Loggers of libraries, and from which level on they are heard."""


class JsonLines(logging.Formatter):
    """A log line as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's time, level, logger and message, and the traceback if it has one."""
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


@click.command(
    epilog="""\b
Example:
  head -c 32 /dev/urandom | base64 > caller.key
  CITYBRAIN_CALLER_KEY_FILE=caller.key citybrain worker --city packs/sample --brokers kafka:9092
"""
)
@click.option("--config", type=click.Path(path_type=Path), help="Settings file.  [default: citybrain.toml, if there]")
@click.option("--city", type=click.Path(path_type=Path), help="The city pack, a folder.")
@click.option("--brokers", help=BROKERS_HELP)
@click.option("--prefix", help=PREFIX_HELP)
@click.option("--group", help="Consumer group.")
@click.option("--clickhouse", help="DSN: clickhouse://… a server, chdb:///path the embedded engine.")
@click.option("--host", help="Address to serve /metrics, /healthz and /readyz on.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port of it; 0 takes a free one.")
@click.option("--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]), help="What to log.")
@click.option("--json", "as_json", is_flag=True, help="Log one JSON object a line, for machines.")
@click.option("--test-key", is_flag=True, hidden=True, help="Hash callers under the published test key: demo only.")
def worker(config: Path | None, as_json: bool, test_key: bool, **flags: Any) -> None:
    """Consume the source topics, find incidents, and write them to Kafka and ClickHouse, until stopped.

    Settings come from citybrain.toml, overridden by CITYBRAIN_… in the environment, overridden by these options.
    Exits 1 with one line when the pack, Kafka, its topics or ClickHouse are not there.
    """
    try:
        settings = read_settings(config, flags=flags)
        key = TEST_KEY if test_key else settings.require_key()
    except SettingsError as error:
        fail(str(error))
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonLines() if as_json else logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    )
    logging.basicConfig(level=settings.log_level, handlers=[handler])
    if settings.log_level != "DEBUG":
        for chatty, level in _CHATTY.items():
            logging.getLogger(chatty).setLevel(level)
    run_worker(settings, key)


def run_worker(settings: Settings, key: bytes) -> None:
    """Check what the worker needs, then run it in the foreground until it is stopped."""
    pack = load_city(settings.city)
    require_broker(settings.brokers)
    # Imported here: faust patches and starts things, which the other commands do not need.
    from faust.worker import Worker as FaustWorker

    from agents.worker import Worker
    from sinks.clickhouse import ClickHouseSink
    from sinks.errors import SinkError
    from sinks.kafka import KafkaSink
    from streams.messages import REPORTS

    try:
        sink = ClickHouseSink(
            settings.clickhouse, max_rows=settings.clickhouse_max_rows, max_age_s=settings.clickhouse_max_age_s
        )
        sink.prepare()
        kafka = KafkaSink(settings.brokers)
        shards = kafka.partitions(settings.prefix + REPORTS)
    except SinkError as error:
        fail(str(error))
    if not shards:
        fail(
            f"Kafka at {settings.brokers} has no topic {settings.prefix}{REPORTS}; "
            f"make the topics with `citybrain topics create --brokers {settings.brokers} --prefix {settings.prefix}`"
        )
    warm_up(pack)
    service = Worker(settings, key, pack, kafka, sink, shards)
    faust_worker = FaustWorker(
        service.app, loglevel=settings.log_level, logfile=None, override_logging=False, quiet=True
    )
    code = 0
    try:
        faust_worker.execute_from_commandline()
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        kafka.close()
        sink.close()
    raise SystemExit(code)


def warm_up(pack: Any) -> None:
    """Compile the kernels before the consumer group counts on this worker."""
    from streams.recording import RecordedMessage
    from streams.replay import Replay

    # Within a cell, for what lies outside the city goes no further than that.
    inside = pack.grid.geometries[0].representative_point()
    common = f'"id":"warm-up","time":0,"lon":{inside.x},"lat":{inside.y},"crs":"wgs84"'
    report = f'{{{common},"worker_id":"w","category":"{pack.categories[0].code}"}}'
    reading = f'{{{common},"device_id":"d","metric":"m","value":0}}'
    messages = [RecordedMessage("patrol.reports", report.encode()), RecordedMessage("iot.readings", reading.encode())]
    Replay(pack, TEST_KEY).take(messages)
