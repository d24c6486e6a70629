"""The times of a platform's records are found and moved wherever, and however, its mapping reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from platform_scenario import NOON_MS, fields_of, pack_with, read

from streams.pack import CityPack
from streams.platform_records import record_times
from streams.platform_times import TimeFormat


def pack_of(path: str, time_format: str, elements: str | None = None) -> CityPack:
    """A city with one platform, which says its times there and so."""
    return pack_with(f"""
[platform.any]
source = "hotline"
time_format = "{time_format}"
{"" if elements is None else f'elements = "{elements}"'}
fields = {{ id = "id", category = "kind", time = '{path}' }}
""")


# A path, and a value with the time there.
PLACES: dict[str, Any] = {
    "t": lambda time: {"t": time},
    "head.t": lambda time: {"head": {"t": time}},
    "list[1]": lambda time: {"list": [5, time]},
    "list[0].t": lambda time: {"list": [{"t": time}, {}]},
    "text[1]": lambda time: {"text": f"x,{time}"},
    "text[0]": lambda time: {"text": f"{time},7,"},
    "text[1][0]": lambda time: {"text": f"x,{time}"},
    "list[1][2]": lambda time: {"list": [5, f"x,,{time},y"]},
    "list[0].text[1]": lambda time: {"list": [{"text": f"x,{time}"}]},
}


@given(
    st.sampled_from(list(PLACES)),
    st.sampled_from(["rfc3339", "unix_s", "unix_ms", "%Y-%m-%d %H:%M:%S"]),
    st.sampled_from([None, "rows", "body.rows"]),
    st.booleans(),
    st.integers(-(10**6), 10**6),
)
def test_a_moved_record_reads_as_one_of_the_moved_time(path, time_format, elements, is_around, shift_s):
    is_around = is_around and elements is not None
    pack = pack_of("^" * is_around + path, time_format, elements)
    whole = PLACES[path](TimeFormat(time_format, pack.timezone).write(NOON_MS))
    value = {"id": "1", "kind": "x"} | ({} if is_around else whole)
    for key in reversed((elements or "").split(".")):
        value = {key: [value] if key == "rows" else value} if key else value
    raw = json.dumps(value | (whole if is_around else {})).encode()
    (times,) = record_times(pack).values()
    assert times.newest_ms(raw) == fields_of_time(raw, pack) == NOON_MS
    moved = times.moved(raw, shift_s * 1000)
    assert times.newest_ms(moved) == fields_of_time(moved, pack) == NOON_MS + shift_s * 1000


def fields_of_time(raw: bytes, pack: CityPack) -> Any:
    return fields_of(read("any", raw, pack))["time"]


def test_what_else_stands_in_a_text_with_a_time_stays():
    (times,) = record_times(pack_of("head[1]", "unix_s")).values()
    assert times.moved(b'{"head":"x,1780300800, y","n":[1]}', 60_000) == b'{"head":"x,1780300860, y","n":[1]}'


@pytest.mark.parametrize("value", [b'{"head":"1780300800"}', b'{"head":"x,noon"}', b'{"head":["x"]}', b'{"head":{}}'])
def test_a_text_without_a_time_is_left_byte_for_byte(value):
    (times,) = record_times(pack_of("head[1]", "unix_s")).values()
    assert times.newest_ms(value) is None
    assert times.moved(value, 60_000) is value
