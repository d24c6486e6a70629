"""The options that stand for settings: of the worker, and of the doctor who looks at what a worker would have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from agents.commands.addresses import BROKERS_HELP, PREFIX_HELP


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add them: ``config``, the file, and a flag for each setting that one gives by hand; None where not given."""
    for option in (
        click.option("--port", type=click.IntRange(0, 65535), help="Port of it; 0 takes a free one."),
        click.option("--host", help="Address to serve /metrics, /healthz and /readyz on."),
        click.option("--clickhouse", help="DSN: clickhouse://… a server, chdb:///path the embedded engine."),
        click.option("--group", help="Consumer group."),
        click.option("--prefix", help=PREFIX_HELP),
        click.option("--brokers", help=BROKERS_HELP),
        click.option("--city", type=click.Path(path_type=Path), help="The city pack, a folder."),
        click.option(
            "--config", type=click.Path(path_type=Path), help="Settings file.  [default: citybrain.toml, if there]"
        ),
    ):
        command = option(command)
    return command
