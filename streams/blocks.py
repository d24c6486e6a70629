"""Blocks: what one record of the internal `reports` topic holds — reports for one shard, and marks.

A block is self-contained: categories and cells stand in it by code, so a reader with another pack still understands
it.  It is a msgpack array of little-endian columns, compressed with zstd.  A block without reports is a tick.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import zstandard

from streams.messages import SOURCES
from streams.pack import CityPack
from streams.reports import LocatedReports, Texts

FORMAT = 1
MAX_BLOCK_ROWS = 5_000
MAX_BLOCK_BYTES = 700_000
"""Below the 1 MiB at which brokers refuse a record by default, headers and all."""
_MAX_RAW_BYTES = 256 << 20

_NUMBERS = (
    "source", "partition", "offset", "index", "mark_ms", "ingested_ms", "time_ms",
    "lon_e7", "lat_e7", "accuracy_cm", "key_hi", "key_lo",
)  # fmt: skip
_TEXTS = ("report_id", "witness", "asset_id", "address", "text")


class BlockError(ValueError):
    """The bytes are not a block that this version reads."""


class Mark(msgspec.Struct, array_like=True, frozen=True):
    """How far one source partition has been read: its newest ingestion time, and whether nothing more waits in it."""

    topic: str
    partition: int
    newest_ms: int
    drained: bool


class _Encoded(msgspec.Struct, array_like=True):
    format: int
    city: str
    pack_version: str
    marks: list[Mark]
    rows: int
    numbers: list[bytes]
    texts: list[tuple[bytes, bytes]]  # lengths as int32, then the joined UTF-8
    categories: list[str]
    category: bytes
    cells: list[str]
    cell: bytes


@dataclass(slots=True)
class Block:
    """A decoded block: its reports in columns, and the marks that hold before its first report."""

    city: str
    pack_version: str
    reports: LocatedReports
    marks: list[Mark] = field(default_factory=list)


def shard_of_group(city: str, group: str, shards: int) -> int:
    """The partition of `reports` that carries a category group of a city: a stable hash."""
    digest = hashlib.blake2b(f"{city}\0{group}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) % shards


def encode_tick(pack: CityPack, marks: Sequence[Mark]) -> bytes:
    """A block without reports."""
    return _compress(_Encoded(FORMAT, pack.code, pack.version, list(marks), 0, [], [], [], b"", [], b""))


def encode_blocks(pack: CityPack, reports: LocatedReports) -> Iterator[bytes]:
    """The reports as one or more blocks, in order, none larger than :data:`MAX_BLOCK_BYTES` unless of one row."""
    for start in range(0, len(reports), MAX_BLOCK_ROWS):
        yield from _split(pack, reports.take(slice(start, start + MAX_BLOCK_ROWS)))


def _split(pack: CityPack, reports: LocatedReports) -> Iterator[bytes]:
    encoded = _encode(pack, reports)
    if len(encoded) <= MAX_BLOCK_BYTES or len(reports) == 1:
        yield encoded
        return
    half = len(reports) // 2
    yield from _split(pack, reports.take(slice(0, half)))
    yield from _split(pack, reports.take(slice(half, None)))


def _encode(pack: CityPack, reports: LocatedReports) -> bytes:
    category_numbers, category = np.unique(reports.category, return_inverse=True)
    cell_numbers, cell = np.unique(reports.cell, return_inverse=True)
    return _compress(
        _Encoded(
            FORMAT,
            pack.code,
            pack.version,
            [],
            len(reports),
            [_little_endian(getattr(reports, name)) for name in _NUMBERS],
            [_encode_texts(getattr(reports, name)) for name in _TEXTS],
            [pack.categories[number].code for number in category_numbers.tolist()],
            _little_endian(category.astype(np.int32)),
            ["" if number < 0 else pack.grid.codes[number] for number in cell_numbers.tolist()],
            _little_endian(cell.astype(np.int32)),
        )
    )


def decode_block(data: bytes, pack: CityPack) -> Block:
    """The block, with categories and cells as indices into ``pack``.

    A cell that this pack does not have becomes the city itself; raises :class:`BlockError` for bytes that are no block
    of this format, for another city's, or for a category that the pack does not have.
    """
    try:
        if zstandard.frame_content_size(data) > _MAX_RAW_BYTES:
            raise BlockError(f"not a block of reports: more than {_MAX_RAW_BYTES >> 20} MiB when decompressed")
        raw = zstandard.ZstdDecompressor().decompress(data, max_output_size=_MAX_RAW_BYTES)
        read = _decoder.decode(raw)
    except (zstandard.ZstdError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BlockError(f"not a block of reports: {error}") from error
    if read.format != FORMAT:
        raise BlockError(f"block format {read.format}, this version reads {FORMAT}")
    if read.city != pack.code:
        raise BlockError(f"block of city {read.city}, this pack is of {pack.code}")
    if not read.rows:
        return Block(read.city, read.pack_version, LocatedReports.empty(), read.marks)
    categories = np.asarray([pack.category_index(code) for code in read.categories], np.int32)
    if (categories < 0).any():
        unknown = read.categories[int(np.argmin(categories))]
        raise BlockError(f"block with category {unknown}, which the pack {pack.version} does not have")
    cells = np.asarray([pack.grid.index_of_code.get(code, -1) for code in read.cells], np.int32)
    try:
        columns: dict[str, Any] = {
            name: _decode_numbers(column, _WIRE_DTYPE[name], read.rows)
            for name, column in zip(_NUMBERS, read.numbers, strict=True)
        }
        for name, (lengths, joined) in zip(_TEXTS, read.texts, strict=True):
            columns[name] = _decode_texts(_decode_numbers(lengths, np.dtype("<i4"), read.rows), joined)
        columns["category"] = _decode_codes(read.category, categories, read.rows)
        columns["cell"] = _decode_codes(read.cell, cells, read.rows)
        # The core counts by source in a fixed array and does not look twice.
        if not ((columns["source"] >= 0) & (columns["source"] < len(SOURCES))).all():
            raise ValueError("a source that is none")
        reports = LocatedReports.from_columns(**columns)
    except ValueError as error:  # lengths that do not agree, numbers out of range, texts that are not UTF-8
        raise BlockError(f"not a block of reports: {error}") from error
    return Block(read.city, read.pack_version, reports, read.marks)


_decoder = msgspec.msgpack.Decoder(_Encoded)
_WIRE_DTYPE = {name: getattr(LocatedReports.empty(), name).dtype.newbyteorder("<") for name in _NUMBERS}


def _compress(encoded: _Encoded) -> bytes:
    return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(msgspec.msgpack.encode(encoded))


def _little_endian(column: np.ndarray[Any, Any]) -> bytes:
    return column.astype(column.dtype.newbyteorder("<"), copy=False).tobytes()


def _encode_texts(texts: Texts) -> tuple[bytes, bytes]:
    encoded = [text.encode() for text in texts.tolist()]
    return _little_endian(np.fromiter(map(len, encoded), np.int32, len(encoded))), b"".join(encoded)


def _decode_numbers(data: bytes, dtype: np.dtype[Any], rows: int) -> np.ndarray[Any, Any]:
    column = np.frombuffer(data, dtype)
    if len(column) != rows:
        raise ValueError(f"a column of {len(column)} where {rows} are due")
    # A copy, for a kernel is compiled once more for an array that cannot be written.
    return column.copy()


def _decode_codes(data: bytes, codes: np.ndarray[Any, Any], rows: int) -> np.ndarray[Any, Any]:
    numbers = _decode_numbers(data, np.dtype("<i4"), rows)
    if not ((numbers >= 0) & (numbers < len(codes))).all():
        raise ValueError("a category or cell that the block does not name")
    column: np.ndarray[Any, Any] = codes[numbers]
    return column


def _decode_texts(lengths: np.ndarray[Any, Any], joined: bytes) -> Texts:
    if (lengths < 0).any() or int(lengths.sum(dtype=np.int64)) != len(joined):
        raise ValueError("texts whose lengths do not add up")
    texts = np.empty(len(lengths), np.object_)
    start = 0
    for row, end in enumerate(np.cumsum(lengths, dtype=np.int64).tolist()):
        texts[row] = joined[start:end].decode()
        start = end
    return texts
