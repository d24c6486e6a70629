"""The folder of an embedded engine, looked at before the engine is: it explains little, and prints to standard error.

ClickHouse locks ``FOLDER/status`` with flock(2) for as long as an engine lives and writes its process id into it.
"""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

from sinks.errors import SinkRefused

_PID = re.compile(r"PID: (\d+)")


def check_folder(path: Path | str) -> None:
    """Make the folder where it is missing, and see that this process may open an engine in it.

    Raises
    ------
    SinkRefused
        It cannot be made or written to, or another process has it open.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise SinkRefused(f"{folder} is a file: the embedded ClickHouse needs a folder, give another one") from None
    except OSError as error:
        raise SinkRefused(f"{folder} cannot be made ({error.strerror}): give a folder you may write to") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SinkRefused(f"{folder} cannot be written to: change its permissions or give another folder")
    holder = holder_of(folder)
    if holder not in (None, os.getpid()):
        raise SinkRefused(
            f"{folder} is open in {f'process {holder}' if holder else 'another process'}, and the embedded ClickHouse "
            "serves one process: stop that one, or use a server (clickhouse://host:8123/db)"
        )


def holder_of(folder: Path) -> int | None:
    """Return the process whose engine lives in the folder: its id, 0 if it did not say, None if there is none."""
    try:
        with (folder / "status").open(encoding="utf-8", errors="replace") as status:
            try:
                fcntl.flock(status, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                told = _PID.search(status.read())
                return int(told[1]) if told else 0
    except FileNotFoundError:
        pass
    return None
