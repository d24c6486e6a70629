"""The command line: `citybrain …`, one module a command."""

from __future__ import annotations

import click


@click.group()
def main() -> None:
    """One grid for the whole city: reports of all sources in, one incident each out."""
