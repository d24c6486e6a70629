"""What the commands share of the terminal: one-line errors, answers as JSON, progress bars, reading a pack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from streams.pack import CityPack
    from streams.pack_entries import Fault
    from streams.recording import BadLine

_BAD_LINES_SHOWN = 5

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output, for machines.")
"""Every command has it: `as_json` is then true, and `say_json` the way to answer."""


def fail(message: str) -> NoReturn:
    """Say what is wrong in one line and exit 1."""
    raise click.ClickException(message)


def cannot_read(path: Path | str, error: OSError, remedy: str = "check the path and its permissions") -> NoReturn:
    """Say that a file cannot be read, why, and what to do; exit 1."""
    fail(f"{error.filename or path}: cannot be read ({error.strerror or error}); {remedy}")


def cannot_write(path: Path | str, error: OSError, remedy: str = "check the path and the space left") -> NoReturn:
    """Say that a file cannot be written, why, and what to do; exit 1."""
    fail(f"{error.filename or path}: cannot be written ({error.strerror or error}); {remedy}")


def say_json(answer: Any) -> None:
    """Print one JSON object."""
    click.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())


def counted(count: int, one: str, many: str | None = None) -> str:
    """A number and what it counts: ``1 fault``, ``2,000 faults``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def show_bad_lines(bad_lines: Sequence[BadLine]) -> None:
    """Name the first places of recordings that cannot be read."""
    for bad in bad_lines[:_BAD_LINES_SHOWN]:
        click.echo(str(bad), err=True)
    if len(bad_lines) > _BAD_LINES_SHOWN:
        click.echo(f"… and {counted(len(bad_lines) - _BAD_LINES_SHOWN, 'more place', 'more places')}", err=True)


def fault_line(pack: Path, fault: Fault) -> str:
    """A pack's fault with the path of its file."""
    # Of a pack that is not there, or is a file, the fault names the pack itself.
    return str(fault) if fault.file.startswith(str(pack)) else f"{pack}/{fault}"


def load_city(folder: Path) -> CityPack:
    """The pack in a folder, or an error that names its first faults, each by file and line."""
    # Imported here: shapely and numba take most of a second, and half of the commands read no pack.
    from streams.pack import PackError, load_pack

    try:
        return load_pack(folder)
    except PackError as error:
        first = [fault_line(folder, fault) for fault in error.faults[:_BAD_LINES_SHOWN]]
        if len(error.faults) == 1:
            fail(first[0])
        fail(
            f"{folder}: {len(error.faults):,} faults, `citybrain check-city {folder}` lists them all:\n"
            + "\n".join(first)
        )


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
