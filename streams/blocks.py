"""Blocks: what one record of the internal `reports` topic holds — reports and feedback for one shard, and marks.

A block is self-contained: it carries the terms of its categories and cells (:mod:`streams.terms`), so whoever reads it
decides as the writer's pack would have it.  It is a msgpack array of little-endian columns, compressed with zstd.  A
block without reports and feedback is a tick.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import zstandard

from streams.feedback import ACTIONS, Feedback
from streams.messages import SOURCES, source_of
from streams.readings import RuleTerms
from streams.reports import LocatedReports, Reading, Texts
from streams.signatures import WORDS
from streams.terms import CITY_ITSELF, CategoryTerms, CellCodes, PackTerms, Terms
from streams.witnesses import UNKNOWN_ODDS

FORMAT = 4
MAX_BLOCK_ROWS = 5_000
MAX_BLOCK_BYTES = 700_000
"""Below the 1 MiB at which brokers refuse a record by default, headers and all."""
MAX_BLOCK_RAW_BYTES = 8 << 20
"""Of a block before compression, which makes next to nothing of what repeats."""
_MAX_RAW_BYTES = 256 << 20
"""What is read at most; a block of one row, which alone may exceed the bounds above, is far below it."""

_NUMBERS = (
    "source", "partition", "offset", "index", "mark_ms", "ingested_ms", "time_ms",
    "lon_e7", "lat_e7", "accuracy_cm", "confidence", "key_hi", "key_lo", "device_key", "asset_key", "address_key",
    "signature", "content",
)  # fmt: skip
_TEXTS = ("report_id", "platform", "device", "witness", "asset_id", "address", "text")


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
    south_deg: float
    north_deg: float
    categories: list[CategoryTerms]
    category: bytes
    cells: list[CellCodes]
    cell: bytes
    topics: list[str]
    topic: bytes
    readings: list[_EncodedReading]
    rules: list[list[tuple[RuleTerms, int]]]
    feedback: list[Feedback]  # without the keys of their records
    keys: list[bytes]
    key: list[int]  # of each feedback, the number of its record's key; -1 for none
    shard: tuple[int, int]


class _EncodedReading(msgspec.Struct, array_like=True):
    """The row that is a reading, its metric and value, and which of the block's lists of rules judges it."""

    row: int
    metric: str
    value: float
    rules: int


@dataclass(slots=True)
class Block:
    """A decoded block: its reports in columns, feedback, and the marks that hold before its first report.

    ``shard`` is the number of the shard it was written for, and of how many.
    """

    city: str
    pack_version: str
    reports: LocatedReports
    marks: list[Mark] = field(default_factory=list)
    feedback: list[Feedback] = field(default_factory=list)
    shard: tuple[int, int] = (0, 1)


def encode_tick(terms: PackTerms, marks: Sequence[Mark]) -> bytes:
    """A block without reports."""
    return _compress(msgspec.msgpack.encode(_block(terms, marks=marks)))


def encode_blocks(
    terms: PackTerms,
    reports: LocatedReports,
    feedback: Sequence[Feedback] = (),
    shard: tuple[int, int] = (0, 1),
) -> Iterator[bytes]:
    """Reports and feedback as one or more blocks, in order.

    None is larger than :data:`MAX_BLOCK_BYTES`, nor before compression than :data:`MAX_BLOCK_RAW_BYTES`, unless of one
    row.  The reports' numbers are those of ``terms``; ``shard`` says which shard they are for, and of how many.
    """
    rest, rest_feedback = reports, list(feedback)
    while len(rest) + len(rest_feedback):
        here, here_feedback, rest, rest_feedback = _cut(rest, rest_feedback, MAX_BLOCK_ROWS)
        yield from _split(terms, here, here_feedback, shard)


def _split(
    terms: PackTerms, reports: LocatedReports, feedback: list[Feedback], shard: tuple[int, int]
) -> Iterator[bytes]:
    rows = len(reports) + len(feedback)
    raw = _encode(terms, reports, feedback, shard)
    if len(raw) <= MAX_BLOCK_RAW_BYTES or rows == 1:
        encoded = _compress(raw)
        if len(encoded) <= MAX_BLOCK_BYTES or rows == 1:
            yield encoded
            return
    del raw  # may be many times as large as what comes of it
    first, first_feedback, second, second_feedback = _cut(reports, feedback, rows // 2)
    yield from _split(terms, first, first_feedback, shard)
    yield from _split(terms, second, second_feedback, shard)


def _cut(
    reports: LocatedReports, feedback: list[Feedback], at: int
) -> tuple[LocatedReports, list[Feedback], LocatedReports, list[Feedback]]:
    """The first ``at`` of reports and feedback in their common order, and the others."""
    first = sum(1 for number, one in enumerate(feedback) if one.before + number < at)
    rows = at - first
    after = [msgspec.structs.replace(one, before=one.before - rows) for one in feedback[first:]]
    return reports.take(slice(0, rows)), feedback[:first], reports.take(slice(rows, None)), after


def _encode(terms: PackTerms, reports: LocatedReports, feedback: Sequence[Feedback], shard: tuple[int, int]) -> bytes:
    encoded = _block(terms, feedback=feedback, shard=shard)
    if len(reports):
        reading_rows = reports.reading_rows()
        of_rules = {category for reading in reports.reading[reading_rows].tolist() for _, category in reading.rules}
        categories = sorted(of_rules.union(reports.category.tolist()))
        cells, cell = np.unique(reports.cell, return_inverse=True)
        topics, topic = np.unique(reports.topic, return_inverse=True)
        encoded.rows = len(reports)
        encoded.numbers = [_little_endian(getattr(reports, name)) for name in _NUMBERS]
        encoded.texts = [_encode_texts(getattr(reports, name)) for name in _TEXTS]
        encoded.categories = [terms.categories[number] for number in categories]
        encoded.category = _little_endian(np.searchsorted(categories, reports.category).astype(np.int32))
        encoded.cells = [CITY_ITSELF if number < 0 else terms.cells[number] for number in cells.tolist()]
        encoded.cell = _little_endian(cell.astype(np.int32))
        encoded.topics = [terms.topics[number] for number in topics.tolist()]
        encoded.topic = _little_endian(topic.astype(np.int32))
        numbers: dict[str, int] = {}
        for row in reading_rows.tolist():
            metric, value, rules = reports.reading[row]
            number = numbers.setdefault(metric, len(numbers))
            if number == len(encoded.rules):
                encoded.rules.append([(rule, categories.index(category)) for rule, category in rules])
            encoded.readings.append(_EncodedReading(row, metric, value, number))
    return msgspec.msgpack.encode(encoded)


def _block(
    terms: PackTerms,
    *,
    marks: Sequence[Mark] = (),
    feedback: Sequence[Feedback] = (),
    shard: tuple[int, int] = (0, 1),
) -> _Encoded:
    # All feedback of an array has its record's key, which may be longer than all of it.
    keys: dict[bytes, int] = {}
    key = [-1 if one.record_key is None else keys.setdefault(one.record_key, len(keys)) for one in feedback]
    said = [msgspec.structs.replace(one, record_key=None) for one in feedback]
    return _Encoded(
        FORMAT, terms.city, terms.pack_version, list(marks), 0, [], [], terms.south_deg, terms.north_deg, [], b"", [],
        b"", [], b"", [], [], said, list(keys), key, shard,
    )  # fmt: skip


def decode_block(data: bytes, terms: Terms) -> Block:
    """The block, its categories and cells by their numbers in ``terms``, which grow by those not seen before.

    Raises :class:`BlockError` for bytes that are no block of this format, or for another city's.
    """
    try:
        if zstandard.frame_content_size(data) > _MAX_RAW_BYTES:
            raise BlockError(f"not a block of reports: more than {_MAX_RAW_BYTES >> 20} MiB when decompressed")
        raw = zstandard.ZstdDecompressor().decompress(data, max_output_size=_MAX_RAW_BYTES)
        read = _decoder.decode(raw)
    except (zstandard.ZstdError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BlockError(f"not a block of reports of format {FORMAT}: {error}") from error
    if read.format != FORMAT:
        raise BlockError(f"block format {read.format}, this version reads {FORMAT}")
    if read.city != terms.city:
        raise BlockError(f"block of city {read.city}, this service is of {terms.city}")
    try:
        _require_feedback(read)
        feedback = [
            msgspec.structs.replace(one, record_key=None if number < 0 else read.keys[number])
            for one, number in zip(read.feedback, read.key, strict=True)
        ]
        if not read.rows:
            return Block(read.city, read.pack_version, LocatedReports.empty(), read.marks, feedback, read.shard)
        _require_terms(read)
        categories = np.array([terms.category(category) for category in read.categories], np.int32)
        cells = np.array([terms.cell(cell) for cell in read.cells], np.int32)
        topics = np.array([terms.topic(topic) for topic in read.topics], np.int32)
        terms.cover(read.south_deg, read.north_deg)
        columns: dict[str, Any] = {
            name: _decode_numbers(column, _WIRE_DTYPE[name], read.rows, WORDS if name == "signature" else 1)
            for name, column in zip(_NUMBERS, read.numbers, strict=True)
        }
        for name, (lengths, joined) in zip(_TEXTS, read.texts, strict=True):
            columns[name] = _decode_texts(_decode_numbers(lengths, np.dtype("<i4"), read.rows), joined)
        columns["category"] = _decode_codes(read.category, categories, read.rows)
        columns["cell"] = _decode_codes(read.cell, cells, read.rows)
        columns["topic"] = _decode_codes(read.topic, topics, read.rows)
        columns["reading"] = _decode_readings(read, categories)
        # The core counts by source in a fixed array and does not look twice.
        if not ((columns["source"] >= 0) & (columns["source"] < len(SOURCES))).all():
            raise ValueError("a source that is none")
        reports = LocatedReports.from_columns(**columns)
    except ValueError as error:  # lengths that do not agree, numbers out of range, texts that are not UTF-8
        raise BlockError(f"not a block of reports: {error}") from error
    return Block(read.city, read.pack_version, reports, read.marks, feedback, read.shard)


def _require_feedback(read: _Encoded) -> None:
    """What the core would not look at twice."""
    shard, shards = read.shard
    if not 0 <= shard < shards:
        raise ValueError("a shard that is none")
    if not all(-1 <= number < len(read.keys) for number in read.key):
        raise ValueError("a key that the block does not have")
    before = 0
    for one in read.feedback:
        if not (before <= one.before <= read.rows and 0 <= one.action < len(ACTIONS)):
            raise ValueError("feedback out of order, or of an action that is none")
        if not all(0 <= half < 1 << 64 for half in (one.incident_hi, one.incident_lo, one.id_hi, one.id_lo)):
            raise ValueError("feedback with a key that is none")
        if not all(-(1 << 62) < number < 1 << 62 for number in (one.time_ms, one.ingested_ms, one.offset)):
            raise ValueError("feedback with a time or an offset that is none")
        if not all(0 <= number < 1 << 31 for number in (one.partition, one.index)):
            raise ValueError("feedback with an origin that is none")
        before = one.before


def _require_terms(read: _Encoded) -> None:
    """Terms that a fold can compile: a damaged one must not stay in it."""
    if not all(source_of(topic) for topic in read.topics):
        raise ValueError("a topic that is no source's")
    for category in read.categories:
        match = category.match
        lengths = [category.radius_cm, category.accuracy_cap_cm, match.spread_cm, match.same_place_cm]
        spans = [category.window_ms, category.reopen_ms, match.same_place_window_ms, match.decay_ms]
        spans += [match.same_place_decay_ms, match.rethink_ms]
        weights = [match.gap_percent, match.rhythm_percent, match.text_percent, match.busy_percent]
        weights += [match.rival_percent, match.sigmas]
        points = [match.prior or 0, match.reopening, match.base, match.same_place, match.rethink, match.unrelated]
        points += [*match.pairs, *match.again, *(of_other for _, of_other in match.related)]
        is_whole = len(match.pairs) == len(SOURCES) ** 2 and len(match.again) == len(SOURCES)
        if not is_whole or not all(-(1 << 20) < number < 1 << 20 for number in points):
            raise ValueError(f"category {category.code} with points out of range")
        # Lengths are squared, two of them together.
        if not all(0 <= number < 1 << 30 for number in lengths):
            raise ValueError(f"category {category.code} with lengths out of range")
        if not all(0 <= number < 1 << 50 for number in spans):
            raise ValueError(f"category {category.code} with times out of range")
        if not all(0 <= number < 1 << 20 for number in weights):
            raise ValueError(f"category {category.code} with weights out of range")
        if not all(UNKNOWN_ODDS <= odds < 1 << 20 for odds in (*category.odds, category.confirm_odds)):
            raise ValueError(f"category {category.code} with odds out of range")
    if not -90 <= read.south_deg <= read.north_deg <= 90:
        raise ValueError("latitudes that are none")


_decoder = msgspec.msgpack.Decoder(_Encoded)
_WIRE_DTYPE = {name: getattr(LocatedReports.empty(), name).dtype.newbyteorder("<") for name in _NUMBERS}


def _compress(raw: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(raw)


def _little_endian(column: np.ndarray[Any, Any]) -> bytes:
    return column.astype(column.dtype.newbyteorder("<"), copy=False).tobytes()


def _encode_texts(texts: Texts) -> tuple[bytes, bytes]:
    encoded = [text.encode() for text in texts.tolist()]
    return _little_endian(np.fromiter(map(len, encoded), np.int32, len(encoded))), b"".join(encoded)


def _decode_numbers(data: bytes, dtype: np.dtype[Any], rows: int, width: int = 1) -> np.ndarray[Any, Any]:
    column = np.frombuffer(data, dtype)
    if width > 1:
        column = column.reshape(-1, width)
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


def _decode_readings(read: _Encoded, categories: np.ndarray[Any, Any]) -> list[Reading | None]:
    readings: list[Reading | None] = [None] * read.rows
    numbers = categories.tolist()
    rules_of = []
    for rules in read.rules:
        if not rules or not all(0 <= category < len(numbers) for _, category in rules):
            raise ValueError("a rule whose category the block does not name")
        rules_of.append(tuple((rule, numbers[category]) for rule, category in rules))
    for one in read.readings:
        if not (0 <= one.row < read.rows and 0 <= one.rules < len(rules_of)):
            raise ValueError("a reading of a row or of rules that the block does not have")
        readings[one.row] = Reading(one.metric, one.value, rules_of[one.rules])
    return readings


def _decode_texts(lengths: np.ndarray[Any, Any], joined: bytes) -> Texts:
    if (lengths < 0).any() or int(lengths.sum(dtype=np.int64)) != len(joined):
        raise ValueError("texts whose lengths do not add up")
    texts = np.empty(len(lengths), np.object_)
    start = 0
    for row, end in enumerate(np.cumsum(lengths, dtype=np.int64).tolist()):
        texts[row] = joined[start:end].decode()
        start = end
    return texts
