"""Blocks give back what went in, are never too large, and are refused when they are anything else."""

from __future__ import annotations

import random
from dataclasses import fields

import msgspec
import numpy as np
import pytest
import zstandard
from city_scenario import CATALOGUE_TOML, CITY_TOML, make_pack
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streams import blocks
from streams.blocks import (
    MAX_BLOCK_BYTES,
    MAX_BLOCK_ROWS,
    BlockError,
    Mark,
    decode_block,
    encode_blocks,
    encode_tick,
    shard_of_group,
)
from streams.messages import SOURCES
from streams.reports import NO_POSITION, LocatedReports

PACK = make_pack()
int32 = st.integers(-(2**31), 2**31 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)
texts = st.text(max_size=4) | st.sampled_from(["", "井盖", "\0", "😀"])
row = st.fixed_dictionaries(
    {
        "source": st.integers(0, len(SOURCES) - 1),
        "partition": st.integers(0, 2**31 - 1),
        "offset": int64,
        "index": int32,
        "mark_ms": int64,
        "ingested_ms": int64,
        "time_ms": int64,
        "lon_e7": int32 | st.just(NO_POSITION),
        "lat_e7": int32,
        "accuracy_cm": int32,
        "category": st.integers(0, len(PACK.categories) - 1),
        "cell": st.integers(-1, len(PACK.grid) - 1),
        "key_hi": st.integers(0, 2**64 - 1),
        "key_lo": st.integers(0, 2**64 - 1),
        "report_id": texts,
        "witness": texts,
        "asset_id": texts,
        "address": texts,
        "text": texts,
    }
)


def reports_of(rows: list[dict[str, object]]) -> LocatedReports:
    return LocatedReports.from_columns(**{f.name: [one[f.name] for one in rows] for f in fields(LocatedReports)})


def assert_equal(one: LocatedReports, other: LocatedReports) -> None:
    for column in fields(LocatedReports):
        mine, theirs = getattr(one, column.name), getattr(other, column.name)
        assert mine.dtype == theirs.dtype, column.name
        assert mine.tolist() == theirs.tolist(), column.name


@given(st.lists(row, max_size=8))
def test_what_goes_into_a_block_comes_out_of_it(rows):
    reports = reports_of(rows)
    read = [decode_block(data, PACK) for data in encode_blocks(PACK, reports)]
    assert len(read) == (1 if rows else 0)
    assert_equal(LocatedReports.concatenate([block.reports for block in read]), reports)
    assert all(block.pack_version == PACK.version and not block.marks for block in read)


@given(st.lists(st.builds(Mark, st.sampled_from(["hotline.tickets", ""]), st.integers(0, 99), int64, st.booleans())))
def test_a_tick_carries_marks_and_nothing_else(marks):
    block = decode_block(encode_tick(PACK, marks), PACK)
    assert block.marks == marks
    assert len(block.reports) == 0


def one_row(**changes: object) -> dict[str, object]:
    return {
        "source": 2, "partition": 0, "offset": 0, "index": 0, "mark_ms": 0, "ingested_ms": 0, "time_ms": 0,
        "lon_e7": 0, "lat_e7": 0, "accuracy_cm": 0, "category": 0, "cell": 0, "key_hi": 0, "key_lo": 0,
        "report_id": "r", "witness": "", "asset_id": "", "address": "", "text": "", **changes,
    }  # fmt: skip


def test_many_reports_become_blocks_of_bounded_rows():
    reports = reports_of([one_row(offset=number) for number in range(2 * MAX_BLOCK_ROWS + 1)])
    read = [decode_block(data, PACK).reports for data in encode_blocks(PACK, reports)]
    assert [len(part) for part in read] == [MAX_BLOCK_ROWS, MAX_BLOCK_ROWS, 1]
    assert_equal(LocatedReports.concatenate(read), reports)


def test_long_texts_become_blocks_of_bounded_bytes():
    """Characters that do not compress, as many as a text may have."""
    chance = random.Random(1)
    rows = [one_row(text="".join(chr(chance.randrange(0x4E00, 0x9FA5)) for _ in range(500))) for _ in range(1500)]
    reports = reports_of(rows)
    encoded = list(encode_blocks(PACK, reports))
    assert len(encoded) > 1
    assert max(map(len, encoded)) <= MAX_BLOCK_BYTES
    assert_equal(LocatedReports.concatenate([decode_block(data, PACK).reports for data in encoded]), reports)


def test_the_same_reports_are_the_same_bytes():
    reports = reports_of([one_row(offset=number, cell=number % 3) for number in range(50)])
    assert list(encode_blocks(PACK, reports)) == list(encode_blocks(PACK, reports))


# ------------------------------------------------------------------------------------------------------- other packs


def test_another_pack_of_the_city_reads_categories_and_cells_by_code():
    """The newer pack has a category more at the front, so every number has moved, and another grid."""
    newer = make_pack(catalogue=CATALOGUE_TOML + CATALOGUE_TOML[:CATALOGUE_TOML.index("[[category]]", 5)]
                      .replace('"manhole"', '"aaa"').replace('"cover_open"', '"a"').replace('"manhole_open"', '"b"')
                      .replace('"井盖"', '"c"'))  # fmt: skip
    reports = reports_of([one_row(category=number % 5, cell=number % 6 - 1) for number in range(30)])
    (data,) = encode_blocks(PACK, reports)
    block = decode_block(data, newer)
    assert block.pack_version == PACK.version != newer.version
    assert [newer.categories[n].code for n in block.reports.category] == [
        PACK.categories[n].code for n in reports.category
    ]
    assert block.reports.cell.tolist() == reports.cell.tolist()


def test_a_cell_that_the_pack_does_not_have_becomes_the_city_itself():
    (data,) = encode_blocks(PACK, reports_of([one_row(cell=3)]))
    read = msgspec.msgpack.decode(zstandard.decompress(data))
    read[read.index([PACK.grid.codes[3]])] = ["990101001001999"]
    again = zstandard.compress(msgspec.msgpack.encode(read))
    assert decode_block(again, PACK).reports.cell.tolist() == [-1]


@pytest.mark.parametrize(
    ("pack", "complaint"),
    [
        pytest.param(
            make_pack(city=CITY_TOML.replace("990100", "880100")),
            "block of city 990100, this pack is of 880100",
            id="another city",
        ),
        pytest.param(
            make_pack(catalogue=CATALOGUE_TOML.replace('"cover-noise"', '"noise"')),
            "block with category cover-noise, which the pack [0-9a-f]{16} does not have",
            id="a category less",
        ),
    ],
)
def test_a_block_that_means_something_else_here_is_refused(pack, complaint):
    (data,) = encode_blocks(PACK, reports_of([one_row()]))
    with pytest.raises(BlockError, match=complaint):
        decode_block(data, pack)


# ----------------------------------------------------------------------------------------------------------- garbage


GOOD = next(iter(encode_blocks(PACK, reports_of([one_row(offset=number, text="井") for number in range(5)]))))


@given(st.binary(max_size=60))
@example(b"")
@example(GOOD + b"more")
@example(zstandard.compress(b""))
@example(zstandard.compress(msgspec.msgpack.encode([1])))
@example(b"\x28\xb5\x2f\xfd\xe0" + b"\xff" * 8)  # a frame that says it holds 16 EiB
def test_bytes_that_are_no_block_are_refused_as_such(data):
    try:
        block = decode_block(data, PACK)
    except BlockError:
        return
    assert len(block.reports) == 5  # what follows a whole frame is not looked at


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_a_block_with_a_byte_changed_is_refused_or_the_same(at, byte):
    data = bytearray(GOOD)
    data[at] = byte
    try:
        read = decode_block(bytes(data), PACK).reports
    except BlockError:
        return
    assert_equal(read, decode_block(GOOD, PACK).reports)


@settings(max_examples=120)
@given(st.data())
def test_a_block_with_a_part_exchanged_is_refused_or_within_bounds(data):
    """Well compressed and well encoded, but not by us: what the core is given it may count by."""
    read = msgspec.msgpack.decode(zstandard.decompress(GOOD))
    junk = st.sampled_from(
        [b"", b"\xff" * 20, b"\x00" * 20, b"\x07" * 5, b"\x80", [], ["x"], [b""], -1, 0, 5, 2**40, None]
    )
    at = data.draw(st.integers(0, len(read) - 1))
    if isinstance(read[at], list) and read[at] and data.draw(st.booleans()):
        inner = data.draw(st.integers(0, len(read[at]) - 1))
        read[at][inner] = data.draw(junk | st.tuples(st.binary(max_size=20), st.binary(max_size=3)))
    else:
        read[at] = data.draw(junk)
    try:
        reports = decode_block(zstandard.compress(msgspec.msgpack.encode(read)), PACK).reports
    except BlockError:
        return
    assert ((reports.source >= 0) & (reports.source < 4)).all()
    assert ((reports.category >= 0) & (reports.category < len(PACK.categories))).all()
    assert ((reports.cell >= -1) & (reports.cell < len(PACK.grid))).all()
    assert {len(getattr(reports, column.name)) for column in fields(LocatedReports)} == {len(reports)}


def test_a_format_of_the_future_is_told_by_its_number():
    read = msgspec.msgpack.decode(zstandard.decompress(GOOD))
    read[0] = blocks.FORMAT + 1
    with pytest.raises(BlockError, match="block format 2, this version reads 1"):
        decode_block(zstandard.compress(msgspec.msgpack.encode(read)), PACK)


def test_the_columns_of_a_block_can_be_written_like_any_others():
    """Otherwise every kernel is compiled a second time for what comes out of blocks."""
    reports = decode_block(GOOD, PACK).reports
    assert all(getattr(reports, column.name).flags.writeable for column in fields(LocatedReports))


# ------------------------------------------------------------------------------------------------------------ shards


def test_the_shard_of_a_group_is_a_promise():
    """Partitions of a running city's topic: another hash would tear its incidents apart."""
    assert [shard_of_group("990100", group, 8) for group in ("covers", "lights", "other")] == [7, 4, 1]


def test_groups_spread_over_shards():
    counts = np.bincount([shard_of_group("c", str(number), 8) for number in range(800)], minlength=8)
    assert counts.min() > 60
