"""Recordings: a stored stream that can be replayed; JSON Lines, one Kafka record a line (plain, `.gz` or `.zst`).

A line is ``{"topic", "value"}`` and optionally ``partition``, ``offset``, ``timestamp`` (Unix milliseconds), ``key``
and ``headers``.  ``value`` holds the record's bytes verbatim where they are JSON on one line, else ``{"base64": …}``.

Reading never stops at the first fault: a line that cannot be read is a :class:`BadLine`, and so is the point where a
file was cut, so that everything readable around it is still replayed and the fault is still told.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import gzip
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any

import msgspec
import orjson
import zstandard
from msgspec import Meta

MAX_LINE_BYTES = 64 << 20
"""A longer line is a fault: a reader must not be made to hold any amount of memory."""


class RecordingError(ValueError):
    """A recording cannot be opened or written; the message names the file and the remedy."""


@dataclass(slots=True, frozen=True)
class RecordedMessage:
    """One Kafka record; ``topic`` is without prefix."""

    topic: str
    value: bytes
    partition: int | None = None
    offset: int | None = None
    timestamp_ms: int | None = None
    key: bytes | None = None
    headers: list[tuple[str, bytes]] = field(default_factory=list)


@dataclass(slots=True, frozen=True)
class BadLine:
    """A place in a recording that cannot be read, and why."""

    path: str
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.problem}"


_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999
"""The years 1 to 9999, which can be written as dates."""


class _Base64(msgspec.Struct, forbid_unknown_fields=True):
    base64: str


class _Line(msgspec.Struct):
    topic: str
    value: msgspec.Raw
    partition: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    offset: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    timestamp: Annotated[int, Meta(ge=_FIRST_MS, le=_LAST_MS)] | None = None
    key: str | _Base64 | None = None
    headers: list[tuple[str, str | _Base64]] = []


_decoder = msgspec.json.Decoder(_Line)
_base64_decoder = msgspec.json.Decoder(_Base64)


def _bytes_of(text: str | _Base64) -> bytes:
    return text.encode() if isinstance(text, str) else base64.b64decode(text.base64, validate=True)


def decode_line(line: bytes) -> RecordedMessage:
    """One line as a message; ``ValueError`` with a readable reason if it is not one."""
    try:
        read = _decoder.decode(line)
        value = bytes(read.value)
        if value.startswith(b"{") and b'"base64"' in value[:16]:
            # An object that merely has a field of that name is a value like any other.
            with contextlib.suppress(msgspec.ValidationError):
                value = _bytes_of(_base64_decoder.decode(value))
        key = None if read.key is None else _bytes_of(read.key)
        headers = [(name, _bytes_of(text)) for name, text in read.headers]
    except msgspec.ValidationError as error:
        raise ValueError(f"not a record of a recording: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
    except binascii.Error as error:
        raise ValueError(f"broken base64: {error}") from error
    return RecordedMessage(read.topic, value, read.partition, read.offset, read.timestamp, key, headers)


def _is_one_line_of_json(value: bytes) -> bool:
    if b"\n" in value or b"\r" in value or value != value.strip():
        return False
    try:
        decoded = orjson.loads(value)
    except orjson.JSONDecodeError:
        return False
    # An object that looks like our own escape must be escaped itself.
    return not (isinstance(decoded, dict) and "base64" in decoded)


def _text_or_base64(data: bytes) -> Any:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def encode_line(message: RecordedMessage) -> bytes:
    """The line, with its newline, from which :func:`decode_line` gives the same message back."""
    fields: dict[str, Any] = {"topic": message.topic}
    if message.partition is not None:
        fields["partition"] = message.partition
    if message.offset is not None:
        fields["offset"] = message.offset
    if message.timestamp_ms is not None:
        fields["timestamp"] = message.timestamp_ms
    if message.key is not None:
        fields["key"] = _text_or_base64(message.key)
    if message.headers:
        fields["headers"] = [[name, _text_or_base64(data)] for name, data in message.headers]
    if _is_one_line_of_json(message.value):
        value = message.value
    else:
        value = orjson.dumps({"base64": base64.b64encode(message.value).decode()})
    return orjson.dumps(fields)[:-1] + b',"value":' + value + b"}\n"


def _chunks(path: Path) -> Iterator[bytes]:
    """The decompressed bytes; raises ``EOFError`` where the compression was cut."""
    with path.open("rb") as file:
        if path.suffix == ".zst":
            yield from _unzstd(file)
        elif path.suffix == ".gz":
            with gzip.GzipFile(fileobj=file) as unzipped:
                while chunk := unzipped.read1(1 << 20):
                    yield chunk
        else:
            while chunk := file.read(1 << 20):
                yield chunk


def _unzstd(file: IO[bytes]) -> Iterator[bytes]:
    # zstandard's own stream reader ends without a word where a frame was cut; decompressobj tells.
    one_frame = None
    pending = b""
    while data := pending or file.read(1 << 20):
        if one_frame is None:
            one_frame = zstandard.ZstdDecompressor().decompressobj()
        yield one_frame.decompress(data)
        pending = b""
        if one_frame.eof:
            pending = one_frame.unused_data
            one_frame = None
    if one_frame is not None:
        raise EOFError("Compressed file ended before the end-of-stream marker was reached")


def _lines(path: Path) -> Iterator[bytes | BadLine]:
    rest = b""
    number = 0
    try:
        for chunk in _chunks(path):
            *complete, rest = (rest + chunk).split(b"\n")
            number += len(complete)
            yield from complete
            if len(rest) > MAX_LINE_BYTES:
                yield BadLine(
                    str(path), number + 1, f"a line of more than {MAX_LINE_BYTES >> 20} MiB; not read further"
                )
                return
    except EOFError:
        yield BadLine(
            str(path), number + 1, "the compressed file is cut here; copy it again, all before this point was read"
        )
        return
    except (zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        yield BadLine(str(path), number + 1, f"the compression is damaged ({error}); all before this point was read")
        return
    if rest.strip():
        yield rest


def read_recording(path: Path | str) -> Iterator[RecordedMessage | BadLine]:
    """Every record of a recording in stream order, and every place that cannot be read.

    Empty lines are skipped.  Raises :class:`RecordingError` if the file cannot be opened.
    """
    path = Path(path)
    number = 0
    try:
        for line in _lines(path):
            number += 1
            if isinstance(line, BadLine):
                yield line
            elif line.strip():
                try:
                    yield decode_line(line)
                except ValueError as error:
                    yield BadLine(str(path), number, str(error))
    except OSError as error:
        raise RecordingError(
            f"{path}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from error


class RecordingWriter:
    """Writes messages to a recording; the file's ending chooses the compression.

    The bytes depend on the messages alone: no time, no file name in the gzip header.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.records = 0
        try:
            self._file: IO[bytes] = self.path.open("wb")
        except OSError as error:
            raise RecordingError(
                f"{path}: cannot be written ({error.strerror}); check the folder and its permissions"
            ) from error
        self._out: Any = self._file
        if self.path.suffix == ".gz":
            self._out = gzip.GzipFile(filename="", mode="wb", fileobj=self._file, mtime=0, compresslevel=6)
        elif self.path.suffix == ".zst":
            self._out = zstandard.ZstdCompressor(level=6).stream_writer(self._file)

    def write(self, message: RecordedMessage) -> None:
        """Append one message."""
        self._out.write(encode_line(message))
        self.records += 1

    def close(self) -> None:
        """Finish the file; without this a compressed one is cut."""
        if self._out is not self._file:
            self._out.close()
        self._file.close()

    def __enter__(self) -> RecordingWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def write_recording(path: Path | str, messages: Iterable[RecordedMessage]) -> int:
    """Write all messages; returns how many."""
    with RecordingWriter(path) as writer:
        for message in messages:
            writer.write(message)
        return writer.records
