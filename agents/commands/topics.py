"""``citybrain topics create|check``: the service's topics on a Kafka."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from agents.commands.addresses import brokers_option, prefix_option, require_broker
from agents.commands.console import counted, fail, json_option, load_city, say_json
from sinks.topics import (
    DEFAULT_PARTITIONS,
    DEFAULT_SHARDS,
    Difference,
    TopicAdministration,
    TopicError,
    TopicSpec,
    differences,
    topic_table,
)


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        json_option,
        click.option(
            "--replication", type=click.IntRange(1), help="Replicas of each partition.  [default: the broker's]"
        ),
        click.option(
            "--keep-old",
            is_flag=True,
            help="No limit of time: for playing recordings, whose old timestamps Kafka would count as expired.",
        ),
        click.option(
            "--shards", type=click.IntRange(1), default=DEFAULT_SHARDS, show_default=True, help="Partitions of reports."
        ),
        click.option(
            "--partitions",
            type=click.IntRange(1),
            default=DEFAULT_PARTITIONS,
            show_default=True,
            help="Partitions of every other topic.",
        ),
        click.option(
            "--city",
            type=click.Path(path_type=Path),
            help="A city pack, for the own topics of its platforms.  [default: only those that every city has]",
        ),
        prefix_option,
        brokers_option,
    ):
        command = option(command)
    return command


@click.group(
    epilog="""\b
Example:
  citybrain topics create --brokers localhost:9092
"""
)
def topics() -> None:
    """Make or check the service's topics: partitions, retention, compaction and message limits."""


@topics.command(
    short_help="Make the topics that are missing.",
    epilog="""\b
Example:
  citybrain topics create --brokers localhost:9092 --city packs/sample --partitions 8 --shards 4
""",
)
@_options
def create(brokers: str, replication: int | None, as_json: bool, **wanted: Any) -> None:
    """Make the topics that are missing; those that exist are left alone and checked.

    Exits 1 if one that exists is not as it should be.
    """
    specs = _specs(**wanted)
    made, faults = _with_administration(brokers, specs, replication, make=True)
    _tell(specs, made, faults, as_json)


@topics.command(
    short_help="Name what is not as it should be.",
    epilog="""\b
Example:
  citybrain topics check --brokers localhost:9092 --json
""",
)
@_options
def check(brokers: str, replication: int | None, as_json: bool, **wanted: Any) -> None:
    """Name every difference between the topics that are there and those that should be; exits 1 if there is one."""
    specs = _specs(**wanted)
    made, faults = _with_administration(brokers, specs, replication, make=False)
    _tell(specs, made, faults, as_json)


def _specs(prefix: str, partitions: int, shards: int, keep_old: bool, city: Path | None) -> tuple[TopicSpec, ...]:
    platforms = () if city is None else load_city(city).platform_topics
    return topic_table(prefix, partitions=partitions, shards=shards, keep_old=keep_old, platforms=platforms)


def _with_administration(
    brokers: str, specs: tuple[TopicSpec, ...], replication: int | None, *, make: bool
) -> tuple[list[str], list[Difference]]:
    require_broker(brokers)
    try:
        with TopicAdministration(brokers) as administration:
            made = administration.create(specs, replication) if make else []
            found = administration.found(spec.name for spec in specs)
    except TopicError as error:
        fail(str(error))
    return made, differences(specs, found, replication=replication)


def _tell(specs: tuple[TopicSpec, ...], made: list[str], faults: list[Difference], as_json: bool) -> None:
    wrong = {fault.topic for fault in faults}
    if as_json:
        answer: dict[str, Any] = {
            "topics": [spec.name for spec in specs],
            "created": made,
            "differences": [{"topic": f.topic, "what": f.what, "remedy": f.remedy} for f in faults],
        }
        say_json(answer)
    else:
        for spec in specs:
            state = "DIFFERS" if spec.name in wrong else "created" if spec.name in made else "ok"
            click.echo(f"{state:8} {spec.name} ({counted(spec.partitions, 'partition')}, {spec.cleanup_policy})")
        for fault in faults:
            click.echo(str(fault), err=True)
    if faults:
        raise SystemExit(1)
