"""Writing a message as a platform says it is the inverse of reading it, and the same event either way is the same."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from city_scenario import KEY
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from platform_scenario import NOON_MS, PACK, fields_of, pack_with, read

from geo.plane import distance_m
from streams.intake import Intake, SourceRecord
from streams.messages import MESSAGE_OF_SOURCE, SOURCES, TOPIC_OF_SOURCE
from streams.pack_entries import FieldPath, PlatformMapping, UnitConversion
from streams.platform_writer import PlatformWriter
from streams.refusal import number_fields
from streams.reports import LocatedReports

MAINLAND = pack_with(middle=(116.35, 27.95))
"""The same platforms where datums differ by hundreds of metres."""


words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
shapes = st.sampled_from(["k{}", "part.k{}", "part.inner.k{}", "list[{}]", "list{}[1].k", '"键 .{}"'])


def ids_of(paths: list[FieldPath]) -> st.SearchStrategy[tuple[FieldPath, ...]]:
    """Ids made of what other fields say, in any order, part of it in the element."""
    parts = [replace(path, may_be_missing=False) for path in paths]
    several = st.permutations(parts).flatmap(lambda order: st.integers(2, 3).map(lambda n: tuple(order[:n])))
    return several.filter(lambda some: not all(path.in_envelope for path in some))


@st.composite
def mappings(draw: st.DrawFn) -> PlatformMapping:
    """Any mapping of any source: each field in a place of its own, some in the envelope, some in arrays."""
    source = draw(st.sampled_from(SOURCES))
    elements = FieldPath.parse("body.list") if draw(st.booleans()) else None
    fields = {}
    for number, field in enumerate(msgspec.structs.fields(MESSAGE_OF_SOURCE[source])):
        if field.required or draw(st.booleans()):
            around = "^" if elements is not None and field.name != "id" and draw(st.booleans()) else ""
            end = "" if field.required or draw(st.booleans()) else "?"
            fields[field.name] = (FieldPath.parse(around + draw(shapes).format(number) + end),)
    numbers = number_fields(MESSAGE_OF_SOURCE[source])
    if draw(st.booleans()):
        fields["id"] = draw(
            ids_of([paths[0] for name, paths in fields.items() if name not in {*numbers, "id", "time"}])
        )
    conversions = st.builds(
        UnitConversion, st.just("cm"), st.sampled_from([0.1, 2.54, 7.0]), st.sampled_from([0.0, -32.5])
    )
    several = st.tuples(conversions)
    return PlatformMapping(
        name="any",
        source=source,
        elements=elements,
        crs=draw(st.sampled_from([None, "wgs84"])),
        time_format=draw(st.sampled_from(["rfc3339", "unix_s", "unix_ms", TO_THE_SECOND, "%Y%m%d %H%M%S.%f%z"])),
        time_zone=draw(st.sampled_from([None, "UTC", "Asia/Kolkata"])),
        fields=fields,
        scale={
            name: draw(st.sampled_from([0.01, 1000.0, 1 / 3])) for name in sorted(numbers - {"value"}) if name in fields
        },
        units=draw(st.dictionaries(words, several, max_size=2)) if {"unit", "value"} <= fields.keys() else {},
        codes={
            name: draw(st.dictionaries(words, words, max_size=3))
            for name in fields
            if name not in {*numbers, "id", "time", "unit", "crs"}
        },
    )


TO_THE_SECOND = "%Y-%m-%d %H:%M:%S"


@st.composite
def messages(draw: st.DrawFn, mapping: PlatformMapping) -> dict[str, Any]:
    """A message with every field of the mapping's source, in our own words."""
    message: dict[str, Any] = {}
    for name in MESSAGE_OF_SOURCE[mapping.source].__struct_fields__:
        if name == "time":
            message[name] = NOON_MS + draw(st.integers(-(10**11), 10**11))
        elif name in number_fields(MESSAGE_OF_SOURCE[mapping.source]):
            message[name] = draw(st.floats(0, 0.99).map(lambda number: round(number, 6)))
        else:
            known = {"unit": ["cm"], "crs": ["wgs84"]}.get(name, [*mapping.codes.get(name, {}).values()])
            message[name] = draw(st.sampled_from(known) if name == "crs" else st.sampled_from([*known, "一"]) | words)
    return message


@settings(max_examples=200)
@given(st.data())
def test_what_was_written_reads_back(data):
    """But for the name, the time to what the format says, and what the platform has no place for."""
    mapping = data.draw(mappings())
    pack = replace(PACK, platforms={"any": mapping})
    message = data.draw(messages(mapping))
    try:
        written = PlatformWriter(pack, "any").write(message)
    except ValueError:  # a word of ours that is the platform's for something else
        assume(False)
    expected = {name: value for name, value in message.items() if name in mapping.fields}
    expected.setdefault("platform", "any")
    if mapping.crs is not None and "lon" in mapping.fields:
        expected["crs"] = "wgs84"
    if len(mapping.fields["id"]) > 1:
        expected["id"] = "-".join(said_at(path, written, mapping) for path in mapping.fields["id"])
    if mapping.time_format == TO_THE_SECOND:
        expected["time"] -= expected["time"] % 1000
    back = fields_of(read("any", written, pack))
    assert back == {name: like(value, back.get(name)) for name, value in expected.items()}


def said_at(path: FieldPath, written: Any, mapping: PlatformMapping) -> Any:
    """What a record of one message has at a path."""
    if mapping.elements is not None and not path.in_envelope:
        for key in mapping.elements.steps:
            written = written[key]
        (written,) = written
    for step in path.steps:
        written = written[step]
    return written


def like(expected: Any, value: Any) -> Any:
    """The value where it is the number expected, but for rounding; else what was expected."""
    return value if isinstance(expected, float) and value == pytest.approx(expected, rel=1e-12, abs=1e-12) else expected


# ----------------------------------------------------------------------------------------------------- plain examples

READING = {
    "id": "r1", "time": NOON_MS, "device_id": "cover-1", "metric": "depth", "value": 15, "unit": "cm",
}  # fmt: skip
ALARM = {"id": "a1", "time": NOON_MS, "device_id": "cover-1", "alarm": "cover_open", "lon": 0.001, "lat": 0.002}
SEEN = {"id": "v1", "time": NOON_MS, "camera_id": "cam-1", "event_type": "manhole_open", "confidence": 0.87}


def test_a_platforms_own_words_and_nesting_are_written():
    write = PlatformWriter(PACK, "things").write
    assert write(READING) == {
        "head": {"msg": "r1", "ts": NOON_MS // 1000, "dev": {"code": "cover-1"}},
        "data": {"item": "WL", "val": 150, "unit": "mm"},
    }
    assert write(ALARM | {"state": "cleared"})["alarm"] == {"code": "17", "status": "0"}
    assert PlatformWriter(PACK, "eyes").write(SEEN) == {
        "head": {"camera": "cam-1"},
        "body": {"list": [{"no": "v1", "at": "2026-03-01 20:00:00", "kind": "E17", "sure": 87}]},
    }


def test_several_messages_are_one_array_or_one_envelope():
    things, eyes = PlatformWriter(PACK, "things"), PlatformWriter(PACK, "eyes")
    assert things.write_batch([READING, ALARM]) == [things.write(READING), things.write(ALARM)]
    both = eyes.write_batch([SEEN, SEEN | {"id": "v2"}])
    assert isinstance(both, dict)
    assert [element["no"] for element in both["body"]["list"]] == ["v1", "v2"]
    with pytest.raises(ValueError, match="one envelope cannot say this of all of its messages"):
        eyes.write_batch([SEEN, SEEN | {"camera_id": "cam-2"}])
    with pytest.raises(ValueError, match="one envelope"):
        eyes.write_batch([])


@pytest.mark.parametrize(
    ("name", "message", "words"),
    [
        ("eyes", {key: value for key, value in SEEN.items() if key != "confidence"}, "always says confidence, at sure"),
        ("things", ALARM | {"alarm": "17"}, "means cover_open by the alarm '17'"),
        ("counts", READING | {"metric": "noise"}, "always means 'depth' as metric, the message 'noise'"),
        ("counts", READING | {"unit": "m"}, "says values in mm, the message in m"),
    ],
)
def test_what_a_platform_cannot_say_is_an_error(name, message, words):
    with pytest.raises(ValueError, match=words):
        PlatformWriter(PACK, name).write(message)


def test_one_place_of_two_fields_gets_what_means_both():
    """A status that says what is wrong and that it is over; a metric's code that implies its unit."""
    pack = pack_with("""
[platform.both]
source = "iot"
fields = { id = "i", time = "t", device_id = "d", metric = "m?", unit = "m?", value = "v?", alarm = "s?", state = "s?" }
units = { WL = { unit = "cm", factor = 100 }, WD = { unit = "cm" } }
[platform.both.codes]
metric = { WD = "width", WL = "depth" }
alarm = { 1 = "cover_open", 2 = "cover_open" }
state = { 1 = "raised", 2 = "cleared" }
""")
    write = PlatformWriter(pack, "both").write
    assert write(READING)["m"] == "WL"
    assert write(READING)["v"] == 0.15
    assert write(ALARM | {"state": "cleared"})["s"] == "2"
    with pytest.raises(ValueError, match="cannot say this unit beside what else is at m"):
        write(READING | {"unit": "m"})
    for message in (READING, ALARM | {"state": "raised"}):
        back = fields_of(read("both", write(message), pack))
        assert back == {key: message[key] for key in message if key not in ("lon", "lat")} | {"platform": "both"}


# ------------------------------------------------------------------------------------------- the same event, both ways


def located(pack: Any, topic: str, value: Any) -> LocatedReports:
    raw = json.dumps(value).encode()
    batch = Intake(pack, KEY).take([SourceRecord(topic, 0, 0, NOON_MS, None, raw)])
    assert batch.dead_letters == []
    return batch.reports


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("things", READING | {"value": 15.1, "device_id": "new", "lon": 116.351, "lat": 27.951, "accuracy_m": 3}),
        ("things", ALARM | {"lon": 116.351, "lat": 27.951, "crs": "wgs84"}),
        ("eyes", SEEN | {"lon": 116.351, "lat": 27.951, "accuracy_m": None}),
        ("calls", {"id": "t", "time": NOON_MS, "category": "井盖", "lon": 116.35, "lat": 27.95, "crs": "gcj02"}),
        ("walks", {"id": "p", "time": NOON_MS, "worker_id": "w", "category": "other", "lon": 116.35, "lat": 27.95}),
    ],
)  # fmt: skip
def test_the_same_event_is_the_same_report_natively_and_through_a_platform(name, message):
    """But for the name, its content as a number (which is of the sender's own words), and a position that went through
    another datum, within its digits: a decimetre.
    """
    writer = PlatformWriter(MAINLAND, name)
    native = located(MAINLAND, TOPIC_OF_SOURCE[MAINLAND.platforms[name].source], message)
    mapped = located(MAINLAND, writer.topic, writer.write(message))
    for column in LocatedReports.__slots__:
        # What it says is compared in its sender's own words, so of one platform only.
        if column in ("topic", "platform", "key_hi", "key_lo", "content"):
            continue
        one, other = getattr(native, column).tolist(), getattr(mapped, column).tolist()
        if column in ("lon_e7", "lat_e7"):
            assert abs(one[0] - other[0]) <= 5
        else:
            assert repr(one) == repr(other), column
    assert (
        distance_m(native.lon_e7[0] / 1e7, native.lat_e7[0] / 1e7, mapped.lon_e7[0] / 1e7, mapped.lat_e7[0] / 1e7) < 0.1
    )


def test_fifteen_centimetres_in_millimetres_are_no_more_than_fifteen():
    """The rule is beyond 15 cm; 150 times 0.1 is a hair beyond in floats."""
    writer = PlatformWriter(PACK, "things")
    assert writer.write(READING)["data"]["val"] == 150
    message = fields_of(read("things", writer.write(READING)))
    assert message["value"] == 15
