"""The options that every command with a Kafka has, and the one line that says that it is not there."""

from __future__ import annotations

import click

from agents.commands.console import fail
from sinks.reach import UnreachableError, require_reachable
from sinks.topics import DEFAULT_PREFIX

BROKERS_HELP = "Kafka's addresses, host:port separated by commas."
PREFIX_HELP = "Goes before every topic's name."

brokers_option = click.option(
    "--brokers",
    default="localhost:9092",
    envvar="CITYBRAIN_BROKERS",
    show_default=True,
    show_envvar=True,
    help=BROKERS_HELP,
)

prefix_option = click.option(
    "--prefix",
    default=DEFAULT_PREFIX,
    envvar="CITYBRAIN_PREFIX",
    show_default=True,
    show_envvar=True,
    help=PREFIX_HELP,
)


def require_broker(brokers: str) -> None:
    """Return if somebody listens there; else one line (exit 1), or wrong usage (exit 2) for what is no address."""
    try:
        require_reachable(brokers)
    except UnreachableError as error:
        fail(str(error))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'--brokers'") from error
