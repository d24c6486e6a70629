"""The command line: `citybrain …`, one module a command."""

from __future__ import annotations

import click

from agents.commands.build_pack import build_pack_command
from agents.commands.check_city import check_city
from agents.commands.evaluate import evaluate
from agents.commands.replay import replay
from agents.commands.topics import topics


@click.group()
def main() -> None:
    """One grid for the whole city: reports of all sources in, one incident each out."""


for _command in (build_pack_command, check_city, evaluate, replay, topics):
    main.add_command(_command)
