"""Reads a truth file for the commands that score or learn by it, and says in words what is wrong with one."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import Progress

from agents.commands.console import cannot_read, fail
from streams.evaluation import EvaluationError, Truth, read_truth


def load_truth(path: Path) -> Truth:
    """The truth in a .csv or .csv.gz; ends the command where it cannot be read."""
    try:
        with opened(path) as lines:
            return read_truth(io.TextIOWrapper(lines, encoding="utf-8-sig", newline=""), name=str(path))
    except EvaluationError as error:
        fail(str(error))
    except UnicodeDecodeError as error:
        fail(f"{path}: not UTF-8 ({error.reason}); save the truth as UTF-8")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        fail(f"{path}: cannot be read ({error}); fetch it again")
    except OSError as error:
        cannot_read(path, error)


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked, with a progress bar on a terminal."""
    console = Console(stderr=True)
    with (
        Progress(console=console, transient=True, disable=not sys.stderr.isatty()) as progress,
        progress.open(path, "rb", description=path.name) as packed,
    ):
        if path.suffix == ".gz":
            with gzip.open(packed) as plain:
                yield plain  # type: ignore[misc]  # GzipFile reads like IO[bytes] and is not declared as one
        else:
            yield packed
