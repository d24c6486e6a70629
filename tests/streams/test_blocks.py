"""Blocks give back what went in, are never too large, and are refused when they are anything else."""

from __future__ import annotations

import random
from dataclasses import fields

import msgspec
import numpy as np
import pytest
import zstandard
from city_scenario import CATALOGUE_TOML, make_pack
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streams import blocks
from streams.blocks import (
    MAX_BLOCK_BYTES,
    MAX_BLOCK_RAW_BYTES,
    MAX_BLOCK_ROWS,
    BlockError,
    Mark,
    decode_block,
    encode_blocks,
    encode_tick,
)
from streams.dedupe import DedupeRules
from streams.feedback import Feedback
from streams.messages import SOURCES
from streams.readings import RuleTerms
from streams.reports import NO_POSITION, LocatedReports, Reading
from streams.routing import shard_of_group
from streams.signatures import WORDS
from streams.terms import CellCodes, PackTerms, Terms

PACK = make_pack()
TERMS = PackTerms(PACK)
TERMS.topic("iot.readings.huaxin")
for number in range(6):
    TERMS.cell(CellCodes(f"99010100100100{number}", None, "990101001", "990101", (("wards", f"W{number % 2}"),)))
RULES = tuple((RuleTerms("level", 3.0, None, 2.0, 60_000, "manhole", 1), number) for number in (0, 4))
int32 = st.integers(-(2**31), 2**31 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)
texts = st.text(max_size=4) | st.sampled_from(["", "井盖", "\0", "😀"])
row = st.fixed_dictionaries(
    {
        "source": st.integers(0, len(SOURCES) - 1),
        "topic": st.integers(0, len(TERMS.topics) - 1),
        "partition": st.integers(0, 2**31 - 1),
        "offset": int64,
        "index": int32,
        "mark_ms": int64,
        "ingested_ms": int64,
        "time_ms": int64,
        "lon_e7": int32 | st.just(NO_POSITION),
        "lat_e7": int32,
        "accuracy_cm": int32,
        "confidence": st.sampled_from([0.0, 0.5, 1.0]),
        "category": st.integers(0, len(PACK.categories) - 1),
        "cell": st.integers(-1, len(TERMS.cells) - 1),
        "key_hi": st.integers(0, 2**64 - 1),
        "key_lo": st.integers(0, 2**64 - 1),
        "device_key": st.integers(0, 2**64 - 1),
        "asset_key": st.integers(0, 2**64 - 1),
        "address_key": st.integers(0, 2**64 - 1),
        "signature": st.tuples(*[st.integers(0, 2**64 - 1)] * WORDS),
        "content": st.integers(0, 2**32 - 1),
        "report_id": texts,
        "platform": texts,
        "device": texts,
        "reading": st.none() | st.builds(Reading, st.just("level"), st.floats(), st.just(RULES)),
        "witness": texts,
        "asset_id": texts,
        "address": texts,
        "text": texts,
    }
)


feedback = st.builds(
    Feedback, st.integers(0, 8), st.integers(0, 5), texts, *[st.integers(0, 2**64 - 1)] * 4,
    *[st.integers(-(2**61), 2**61)] * 2, st.integers(0, 2**31 - 1), st.integers(0, 2**61), st.integers(0, 2**31 - 1),
    texts, st.none() | st.binary(max_size=3), st.binary(max_size=5), st.none() | texts,
)  # fmt: skip


def reports_of(rows: list[dict[str, object]]) -> LocatedReports:
    columns = {f.name: [one[f.name] for one in rows] for f in fields(LocatedReports)}
    columns["signature"] = np.array(columns["signature"], np.uint64).reshape(-1, WORDS)
    return LocatedReports.from_columns(**columns)


def assert_equal(one: LocatedReports, other: LocatedReports) -> None:
    for column in fields(LocatedReports):
        mine, theirs = getattr(one, column.name), getattr(other, column.name)
        assert mine.dtype == theirs.dtype, column.name
        assert repr(mine.tolist()) == repr(theirs.tolist()), column.name  # a reading may be no number


@given(st.lists(row, max_size=8), st.lists(feedback, max_size=4))
def test_what_goes_into_a_block_comes_out_of_it(rows, said):
    reports = reports_of(rows)
    said = sorted((msgspec.structs.replace(one, before=min(one.before, len(rows))) for one in said),
                  key=lambda one: one.before)  # fmt: skip
    read = [decode_block(data, TERMS) for data in encode_blocks(TERMS, reports, said, (1, 3))]
    assert len(read) == (1 if rows or said else 0)
    assert_equal(LocatedReports.concatenate([block.reports for block in read]), reports)
    assert [one for block in read for one in block.feedback] == said
    assert all(block.pack_version == PACK.version and not block.marks and block.shard == (1, 3) for block in read)


@given(st.lists(st.integers(0, 20), max_size=12), st.integers(0, 20), st.integers(1, 5))
def test_blocks_cut_anywhere_keep_the_common_order_of_reports_and_feedback(places, count, most):
    """Every report and every feedback once, and as many reports before each feedback as there were."""
    reports = reports_of([one_row(offset=number) for number in range(count)])
    said = [
        Feedback(min(place, count), 0, "g", 0, 0, 0, number, 0, 0, 0, number, 0, "", None, b"")
        for number, place in enumerate(sorted(places))
    ]
    rest, rest_said, order = reports, said, []
    while len(rest) + len(rest_said):
        here, here_said, rest, rest_said = blocks._cut(rest, rest_said, most)
        assert 0 < len(here) + len(here_said) <= most
        for row in range(len(here) + 1):
            order += [("said", one.offset) for one in here_said if one.before == row]
            order += [("report", int(here.offset[row]))] if row < len(here) else []
    expected = []
    for row in range(count + 1):
        expected += [("said", one.offset) for one in said if one.before == row]
        expected += [("report", row)] if row < count else []
    assert order == expected


@given(st.lists(st.builds(Mark, st.sampled_from(["hotline.tickets", ""]), st.integers(0, 99), int64, st.booleans())))
def test_a_tick_carries_marks_and_nothing_else(marks):
    block = decode_block(encode_tick(TERMS, marks), TERMS)
    assert block.marks == marks
    assert len(block.reports) == 0


def one_row(**changes: object) -> dict[str, object]:
    return {
        "source": 2, "partition": 0, "offset": 0, "index": 0, "mark_ms": 0, "ingested_ms": 0, "time_ms": 0,
        "lon_e7": 0, "lat_e7": 0, "accuracy_cm": 0, "category": 0, "cell": 0, "key_hi": 0, "key_lo": 0, "content": 0,
        "device_key": 0, "asset_key": 0, "address_key": 0, "signature": (0,) * WORDS,
        "topic": 2, "confidence": 1.0, "platform": "", "device": "", "reading": None,
        "report_id": "r", "witness": "", "asset_id": "", "address": "", "text": "", **changes,
    }  # fmt: skip


def test_many_reports_become_blocks_of_bounded_rows():
    reports = reports_of([one_row(offset=number) for number in range(2 * MAX_BLOCK_ROWS + 1)])
    read = [decode_block(data, TERMS).reports for data in encode_blocks(TERMS, reports)]
    assert [len(part) for part in read] == [MAX_BLOCK_ROWS, MAX_BLOCK_ROWS, 1]
    assert_equal(LocatedReports.concatenate(read), reports)


def test_long_texts_become_blocks_of_bounded_bytes():
    """Characters that do not compress, as many as a text may have."""
    chance = random.Random(1)
    rows = [one_row(text="".join(chr(chance.randrange(0x4E00, 0x9FA5)) for _ in range(500))) for _ in range(1500)]
    reports = reports_of(rows)
    encoded = list(encode_blocks(TERMS, reports))
    assert len(encoded) > 1
    assert max(map(len, encoded)) <= MAX_BLOCK_BYTES
    assert_equal(LocatedReports.concatenate([decode_block(data, TERMS).reports for data in encoded]), reports)


def said_by(key: bytes | None, value: bytes, offset: int = 0) -> Feedback:
    return Feedback(0, 0, "g", 0, 0, 0, offset, 0, 0, 0, offset, 0, "990100-g-0", key, value)


def raw_size(data: bytes) -> int:
    return zstandard.frame_content_size(data)


def test_the_long_key_of_an_array_of_feedback_travels_once():
    said = [said_by(b"K" * 200_000, b'{"id":"f"}', offset) for offset in range(2_000)]
    (data,) = encode_blocks(TERMS, reports_of([]), said)
    assert raw_size(data) < 600_000
    assert decode_block(data, TERMS).feedback == said


def test_feedback_with_long_fields_that_nobody_reads_becomes_blocks_of_bounded_raw_bytes():
    """Compressed they would all fit into one."""
    said = [said_by(None, b'{"note":"' + b"x" * 1_000_000 + b'"}', offset) for offset in range(300)]
    encoded = list(encode_blocks(TERMS, reports_of([]), said))
    assert max(map(raw_size, encoded)) <= MAX_BLOCK_RAW_BYTES
    assert [one for data in encoded for one in decode_block(data, TERMS).feedback] == said


sizes = st.sampled_from([0, 1, 1_000, 100_000, MAX_BLOCK_RAW_BYTES // 2, MAX_BLOCK_RAW_BYTES + 1])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), sizes, st.none() | sizes), max_size=6), st.lists(sizes, max_size=3))
def test_whatever_is_encoded_can_be_decoded(sayings, texts_of):
    """However long what repeats in it, and however little of that compression leaves."""
    reports = reports_of([one_row(offset=number, text="t" * size) for number, size in enumerate(texts_of)])
    said = [
        msgspec.structs.replace(
            said_by(None if key is None else b"k" * key, b"v" * size), before=min(place, len(reports))
        )
        for place, size, key in sorted(sayings, key=lambda one: one[0])
    ]
    encoded = list(encode_blocks(TERMS, reports, said))
    read = [decode_block(data, TERMS) for data in encoded]
    assert_equal(LocatedReports.concatenate([block.reports for block in read]), reports)
    assert [msgspec.structs.replace(one, before=0) for block in read for one in block.feedback] == [
        msgspec.structs.replace(one, before=0) for one in said
    ]
    for data, block in zip(encoded, read, strict=True):
        assert raw_size(data) <= MAX_BLOCK_RAW_BYTES or len(block.reports) + len(block.feedback) == 1


def test_the_same_reports_are_the_same_bytes():
    reports = reports_of([one_row(offset=number, cell=number % 3) for number in range(50)])
    assert list(encode_blocks(TERMS, reports)) == list(encode_blocks(TERMS, reports))


# ------------------------------------------------------------------------------------------------------- other packs


def test_a_reader_without_any_pack_knows_the_terms_of_the_writers():
    """Its own numbers, the writer's categories, cells, topics and rules."""
    reports = reports_of(
        [
            one_row(category=number % 5, cell=number % 6 - 1, reading=Reading("level", 1.0, RULES) if number else None)
            for number in range(30)
        ]
    )
    (data,) = encode_blocks(TERMS, reports)
    terms = Terms(PACK.code)
    terms.topic("video.events.other")
    block = decode_block(data, terms)
    assert [terms.categories[n] for n in block.reports.category] == [TERMS.categories[n] for n in reports.category]
    assert [n if n < 0 else terms.cells[n] for n in block.reports.cell] == [
        n if n < 0 else TERMS.cells[n] for n in reports.cell
    ]
    assert [terms.categories[n].code for _, n in block.reports.reading[1].rules] == [
        TERMS.categories[n].code for _, n in RULES
    ]
    assert (terms.south_deg, terms.north_deg) == (TERMS.south_deg, TERMS.north_deg)


def test_a_category_that_has_changed_is_another_one():
    """The same code with a wider radius: what was decided under the narrower one stays decided."""
    wider = PackTerms(make_pack(catalogue=CATALOGUE_TOML.replace("radius_m = 40", "radius_m = 400")))
    terms = Terms(PACK.code)
    numbers = []
    for one in (TERMS, wider, TERMS):
        manhole = [category.code for category in one.categories].index("manhole")
        (data,) = encode_blocks(one, reports_of([one_row(category=manhole, cell=-1)]))
        numbers += decode_block(data, terms).reports.category.tolist()
    assert numbers == [0, 1, 0]
    assert [category.radius_cm for category in terms.categories] == [4000, 40_000]


def test_a_block_of_another_city_is_refused():
    other = Terms("880100")
    (data,) = encode_blocks(TERMS, reports_of([one_row()]))
    with pytest.raises(BlockError, match="block of city 990100, this service is of 880100"):
        decode_block(data, other)
    assert not other.categories


# ----------------------------------------------------------------------------------------------------------- garbage


GOOD = next(iter(encode_blocks(TERMS, reports_of([one_row(offset=number, text="井") for number in range(5)]))))


@given(st.binary(max_size=60))
@example(b"")
@example(GOOD + b"more")
@example(zstandard.compress(b""))
@example(zstandard.compress(msgspec.msgpack.encode([1])))
@example(b"\x28\xb5\x2f\xfd\xe0" + b"\xff" * 8)  # a frame that says it holds 16 EiB
def test_bytes_that_are_no_block_are_refused_as_such(data):
    try:
        block = decode_block(data, TERMS)
    except BlockError:
        return
    assert len(block.reports) == 5  # what follows a whole frame is not looked at


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_a_block_with_a_byte_changed_is_refused_or_the_same(at, byte):
    data = bytearray(GOOD)
    data[at] = byte
    try:
        read = decode_block(bytes(data), TERMS).reports
    except BlockError:
        return
    assert_equal(read, decode_block(GOOD, TERMS).reports)


@settings(max_examples=120)
@given(st.data())
def test_a_block_with_a_part_exchanged_is_refused_or_within_bounds(data):
    """Well compressed and well encoded, but not by us: what the core is given it may count by."""
    read = msgspec.msgpack.decode(zstandard.decompress(GOOD))
    junk = st.sampled_from(
        [
            b"",
            ("a", 1.5, "b"),
            b"\xff" * 20,
            b"\x00" * 20,
            b"\x07" * 5,
            b"\x80",
            [],
            ["x"],
            [b""],
            -1,
            0,
            5,
            2**40,
            None,
        ]
    )
    at = data.draw(st.integers(0, len(read) - 1))
    if isinstance(read[at], list) and read[at] and data.draw(st.booleans()):
        inner = data.draw(st.integers(0, len(read[at]) - 1))
        read[at][inner] = data.draw(junk | st.tuples(st.binary(max_size=20), st.binary(max_size=3)))
    else:
        read[at] = data.draw(junk)
    try:
        reports = decode_block(zstandard.compress(msgspec.msgpack.encode(read)), TERMS).reports
    except BlockError:
        return
    assert ((reports.source >= 0) & (reports.source < 4)).all()
    assert ((reports.category >= 0) & (reports.category < len(TERMS.categories))).all()
    assert ((reports.cell >= -1) & (reports.cell < len(TERMS.cells))).all()
    DedupeRules.from_terms(TERMS)  # whatever was read can be compiled
    assert {len(getattr(reports, column.name)) for column in fields(LocatedReports)} == {len(reports)}


@pytest.mark.parametrize(
    "changes",
    [
        {"spread_cm": 2**40},
        {"same_place_cm": 2**40},
        {"decay_ms": -1},
        {"rethink_ms": 2**50},
        {"prior": 2**20},
        {"sigmas": -1},
        {"gap_percent": -1},
        {"pairs": (0,) * 15},
        {"related": (("manhole", -(2**20)),)},
    ],
    ids=str,
)
def test_weights_that_the_core_could_not_count_with_are_refused(changes):
    """The core squares lengths and multiplies points, in 64 bits, and looks at nothing twice."""
    first = TERMS.categories[0]
    worse = msgspec.structs.replace(first, match=msgspec.structs.replace(first.match, **changes))
    made = PackTerms(PACK)
    made.categories[0] = worse
    (data,) = encode_blocks(made, reports_of([one_row(cell=-1)]))
    terms = Terms(PACK.code)
    with pytest.raises(BlockError, match=r"category cover-noise with .* out of range"):
        decode_block(data, terms)
    assert not terms.categories


def test_a_format_of_the_future_is_told_by_its_number():
    read = msgspec.msgpack.decode(zstandard.decompress(GOOD))
    read[0] = blocks.FORMAT + 1
    with pytest.raises(BlockError, match=f"block format {blocks.FORMAT + 1}, this version reads {blocks.FORMAT}"):
        decode_block(zstandard.compress(msgspec.msgpack.encode(read)), TERMS)


def test_the_columns_of_a_block_can_be_written_like_any_others():
    """Otherwise every kernel is compiled a second time for what comes out of blocks."""
    reports = decode_block(GOOD, TERMS).reports
    assert all(getattr(reports, column.name).flags.writeable for column in fields(LocatedReports))


# ------------------------------------------------------------------------------------------------------------ shards


def test_the_shard_of_a_group_is_a_promise():
    """Partitions of a running city's topic: another hash would tear its incidents apart."""
    assert [shard_of_group("990100", group, 8) for group in ("covers", "lights", "other")] == [7, 4, 1]


def test_groups_spread_over_shards():
    counts = np.bincount([shard_of_group("c", str(number), 8) for number in range(800)], minlength=8)
    assert counts.min() > 60
