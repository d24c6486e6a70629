"""`citybrain worker`: the Faust worker against Kafka and ClickHouse."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agents.commands.addresses import require_broker
from agents.commands.console import fail, load_city
from agents.commands.settings_options import settings_options
from agents.log_lines import hear, set_up_logging
from agents.settings import LOG_LEVELS, Settings, SettingsError, read_settings
from streams.dead_letters import SERVICE_VERSION
from streams.privacy import TEST_KEY

if TYPE_CHECKING:
    from streams.intake import IntakePack

log = logging.getLogger("citybrain.worker")

_MORE_THAN_FIT = 2_100


@click.command(
    epilog="""\b
Example:
  head -c 32 /dev/urandom | base64 > caller.key
  CITYBRAIN_CALLER_KEY_FILE=caller.key citybrain worker --city packs/sample --brokers kafka:9092
"""
)
@settings_options
@click.option("--log-level", type=click.Choice(LOG_LEVELS), help="What to log.")
@click.option("--json", "as_json", is_flag=True, help="Log one JSON object a line, for machines.")
@click.option("--test-key", is_flag=True, hidden=True, help="Hash callers under the published test key: demo only.")
def worker(config: Path | None, as_json: bool, test_key: bool, **flags: Any) -> None:
    """Consume the source topics, find incidents, and write them to Kafka and ClickHouse, until stopped.

    Settings come from citybrain.toml, overridden by CITYBRAIN_… in the environment, overridden by these options.
    Exits 1 with one line when the pack, Kafka, its topics or ClickHouse are not there.
    """
    set_up_logging(as_json=as_json)
    try:
        settings, key = _settings(config, flags, test_key=test_key)
        hear(settings.log_level)
        run_worker(settings, key)
    except click.ClickException as error:
        if not as_json:
            raise
        log.critical("%s", error.format_message(), extra={"event": "not_started"})
        raise SystemExit(error.exit_code) from None


def _settings(config: Path | None, flags: dict[str, Any], *, test_key: bool) -> tuple[Settings, bytes]:
    try:
        settings = read_settings(config, flags=flags)
        return settings, TEST_KEY if test_key else settings.require_key()
    except SettingsError as error:
        fail(str(error))


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
    from streams.intake import IntakePack
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
    made = IntakePack(pack)
    warm_up(made)
    fields = {
        "event": "starts",
        "service_version": SERVICE_VERSION,
        "group": settings.group,
        "pack_version": pack.version,
        "shards": shards,
    }
    log.info("the worker starts: %s on %s and %s", pack.name, settings.brokers, sink.dsn, extra=fields)
    service = Worker(settings, key, made, kafka, sink, shards)
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
    log.info("the worker ended with code %d", code, extra={"event": "ended"})
    raise SystemExit(code)


def warm_up(made: IntakePack) -> None:
    """Compile the kernels, as the pack in use has need of them, before the consumer group counts on this worker."""
    from streams.recording import RecordedMessage
    from streams.replay import Replay

    pack = made.pack
    # Within a cell, for what lies outside the city goes no further than that.
    inside = pack.grid.geometries[0].representative_point()
    common = f'"id":"warm-up","time":0,"lon":{inside.x},"lat":{inside.y},"crs":"wgs84"'
    report = f'{{{common},"worker_id":"w","category":"{pack.categories[0].code}"}}'
    reading = f'{{{common},"device_id":"d","metric":"m","value":0}}'
    # More than a fold has room for at first, so that what enlarges its tables is compiled as well.
    reports = f"[{','.join([report] * _MORE_THAN_FIT)}]"
    messages = [RecordedMessage("patrol.reports", reports.encode()), RecordedMessage("iot.readings", reading.encode())]
    Replay(made, TEST_KEY).take(messages)
