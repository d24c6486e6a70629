"""What the commands share of the terminal: one-line errors, progress bars, reading a pack."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from streams.pack import CityPack, PackError, load_pack


def fail(message: str) -> NoReturn:
    """Say what is wrong in one line and exit 1."""
    raise click.ClickException(message)


def load_city(folder: Path) -> CityPack:
    """The pack in a folder, or an error that names each fault's file and line."""
    try:
        return load_pack(folder)
    except PackError as error:
        fail(f"{folder} is not a usable city pack:\n{error}")


@contextmanager
def progress(what: str, unit: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, nothing in a pipe; yields the function that advances it."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} " + unit),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)
