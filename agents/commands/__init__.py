"""The command line: `citybrain …`, one module a command.

A new command is one line in the table below: its name, where its click object is, and what `citybrain --help` says.
"""

from __future__ import annotations

import click

from agents.commands.lazy_group import LazyGroup

COMMANDS = {
    "demo": ("agents.commands.demo:demo", "Play a simulated day through everything, on this machine."),
    "replay": ("agents.commands.replay:replay", "Run recordings through the whole pipeline, into files."),
    "explain": ("agents.commands.explain:explain", "Say why a report went where, or what an incident consists of."),
    "status": ("agents.commands.status:status", "Say what is in work, what was collapsed, and how new it is."),
    "evaluate": ("agents.commands.evaluate:evaluate", "Score a replay's answers against a known truth."),
    "fit": ("agents.commands.fit:fit", "Learn from labels how a city's evidence is to be weighed."),
    "simulate": ("agents.commands.simulate:simulate", "Invent a city day with known truth, as a recording."),
    "check-city": ("agents.commands.check_city:check_city", "Name every fault of a city pack, by file and line."),
    "build-pack": ("agents.commands.build_pack:build_pack_command", "Make a grid and a pack from boundaries."),
    "worker": ("agents.commands.worker:worker", "Run the service against Kafka and ClickHouse."),
    "doctor": ("agents.commands.doctor:doctor", "Say what a worker lacks here, and what to do about it."),
    "topics": ("agents.commands.topics:topics", "Create or check the service's topics on a Kafka."),
    "produce": ("agents.commands.produce:produce", "Play a recording into Kafka, at any pace."),
    "record": ("agents.commands.record:record", "Write topics of a Kafka into a recording."),
    "schemas": ("agents.commands.schemas:schemas", "Write JSON Schemas of the messages, and an AsyncAPI document."),
}


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    epilog="""\b
Example, and the place to start:
  citybrain demo
""",
)
@click.version_option(package_name="city-brain-streams", message="%(package)s %(version)s")
def main() -> None:
    """One grid for the whole city: many reports in, one incident each out."""
