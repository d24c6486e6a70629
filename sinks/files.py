"""Results as files: one folder per run, JSON Lines, identical bytes for identical results."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import msgspec

from sinks.errors import SinkUnwritable
from sinks.incident_sink import supersedes
from streams.messages import Assignment, DeadLetterRecord, Incident

ASSIGNMENTS_FILE = "assignments.jsonl"
DEAD_LETTERS_FILE = "dead-letters.jsonl"
INCIDENTS_FILE = "incidents.jsonl"
SUMMARY_FILE = "summary.json"

_WRITE_BUFFER_BYTES = 1 << 20
_INCIDENTS_PER_WRITE = 10_000

# Deterministic order touches only dicts (`sources`): their order of insertion depends on the order of reports, and a
# state restored from a snapshot need not remember it.
_JSON = msgspec.json.Encoder(order="deterministic")

_REMEDIES = {
    errno.ENOSPC: "the disk is full: free space there or choose another folder",
    errno.EDQUOT: "your quota there is used up: free space or choose another folder",
    errno.EACCES: "not permitted: choose a folder you may write to, or change its permissions",
    errno.EPERM: "not permitted: choose a folder you may write to, or change its permissions",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.ENOTDIR: "part of the path is a file, not a folder: choose another folder",
    errno.EEXIST: "a file of that name is in the way: remove it or choose another folder",
    errno.EISDIR: "a folder of that name is in the way: remove it or choose another folder",
    errno.ENOENT: "it cannot be created there: choose another folder",
}


def _unwritable(path: Path, error: OSError) -> SinkUnwritable:
    remedy = _REMEDIES.get(error.errno or 0, f"{error.strerror or error}: choose another folder")
    return SinkUnwritable(f"cannot write {path}: {remedy}")


class _PartFile:
    """One result file under its working name `<name>.part` until it is whole."""

    def __init__(self, final: Path) -> None:
        self.final = final
        self.part = final.with_name(final.name + ".part")
        try:
            # Closed by `finish` and `abandon`: its life is the run's, not a block's.
            self._file: BinaryIO = open(self.part, "wb", buffering=_WRITE_BUFFER_BYTES)  # noqa: SIM115
        except OSError as error:
            raise _unwritable(self.part, error) from error

    def write(self, content: bytes) -> None:
        try:
            self._file.write(content)
        except OSError as error:
            raise _unwritable(self.part, error) from error

    def finish(self) -> None:
        """Everything on disk, still under the working name."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            raise _unwritable(self.part, error) from error

    def publish(self) -> None:
        """Give the file its real name, replacing an earlier run's."""
        try:
            os.replace(self.part, self.final)
        except OSError as error:
            raise _unwritable(self.final, error) from error

    def abandon(self) -> None:
        # Closing flushes, which fails again on the full disk that brought us here; that error has been told already.
        with contextlib.suppress(OSError):
            self._file.close()


class FileSink:
    """Writes a run's results into a folder.

    ``assignments.jsonl`` in order of decision, ``dead-letters.jsonl`` in order, ``incidents.jsonl`` in their final
    state sorted by id, ``summary.json``.  Until `close` everything stands under ``*.part`` names and an earlier run's
    results are untouched; `close` renames them, ``summary.json`` last, so a folder with a summary is complete.

    Incidents are held in memory until `close`; assignments and dead letters are not.

    Used as a context manager it closes nothing on success (the summary is the caller's) and leaves the ``*.part``
    files on an error.

    Raises
    ------
    SinkUnwritable
        One line naming the path and the remedy: no permission, no such place, full disk.
    """

    def __init__(self, folder: Path | str) -> None:
        """Make the folder and open the working files."""
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        self._incident_of_id: dict[str, Incident] = {}
        self._closed = False
        self._parts: list[_PartFile] = []
        self._assignments = self._open(ASSIGNMENTS_FILE)
        self._dead_letters = self._open(DEAD_LETTERS_FILE)

    def _open(self, name: str) -> _PartFile:
        try:
            part = _PartFile(self.folder / name)
        except SinkUnwritable:
            self.abandon()
            raise
        self._parts.append(part)
        return part

    def write(
        self, assignments: Sequence[Assignment], incidents: Sequence[Incident], dead_letters: Sequence[DeadLetterRecord]
    ) -> None:
        """Take one batch; assignments and dead letters go to their files, incidents wait for `close`."""
        if self._closed:
            raise ValueError("this sink is closed")
        if assignments:
            self._assignments.write(_JSON.encode_lines(assignments))
        if dead_letters:
            self._dead_letters.write(_JSON.encode_lines(dead_letters))
        for incident in incidents:
            old = self._incident_of_id.get(incident.incident_id)
            if old is None or supersedes(incident, old):
                self._incident_of_id[incident.incident_id] = incident

    def close(self, summary: Mapping[str, object] | None = None) -> None:
        """Write incidents and summary, then give every file its real name.  Closing twice does nothing."""
        if self._closed:
            return
        incidents = self._open(INCIDENTS_FILE)
        for lines in self._incident_lines():
            incidents.write(lines)
        summary_file = self._open(SUMMARY_FILE)
        # Insertion order: the summary is for people, and its maker puts the important first.
        summary_file.write(msgspec.json.format(msgspec.json.encode(summary or {}), indent=2) + b"\n")
        for part in self._parts:
            part.finish()
        # The old summary goes first and the new one comes last: between them the folder is visibly unfinished.
        try:
            (self.folder / SUMMARY_FILE).unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(self.folder / SUMMARY_FILE, error) from error
        for part in self._parts:
            part.publish()
        self._closed = True

    def _incident_lines(self) -> Iterable[bytes]:
        ids = sorted(self._incident_of_id)
        for start in range(0, len(ids), _INCIDENTS_PER_WRITE):
            yield _JSON.encode_lines([self._incident_of_id[key] for key in ids[start : start + _INCIDENTS_PER_WRITE]])

    def abandon(self) -> None:
        """Let go of the files and leave them under their ``*.part`` names."""
        for part in self._parts:
            part.abandon()
        self._closed = True

    def __enter__(self) -> FileSink:
        """Return the sink itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Abandon what was not closed."""
        if not self._closed:
            self.abandon()
