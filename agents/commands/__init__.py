"""The command line: `citybrain …`, one module a command."""

from __future__ import annotations

import click

from agents.commands.evaluate import evaluate
from agents.commands.replay import replay
from agents.commands.simulate import simulate


@click.group()
def main() -> None:
    """One grid for the whole city: reports of all sources in, one incident each out."""


for _command in (evaluate, replay, simulate):
    main.add_command(_command)
