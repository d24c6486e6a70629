"""Dead letters on their topic and off it again."""

from __future__ import annotations

import pytest
from city_scenario import KEY
from hypothesis import given
from hypothesis import strategies as st
from platform_scenario import NOON_MS, PACK

from streams.dead_letters import DeadLetter
from streams.intake import Intake, SourceRecord
from streams.messages import Reason

letters = st.builds(
    DeadLetter,
    topic=st.sampled_from(["iot.readings", "video.events.tingshi", "dispatch.feedback", "reports"]),
    partition=st.integers(0, 2**31 - 1),
    offset=st.integers(0, 2**62),
    index=st.integers(0, 2**31 - 1),
    key=st.none() | st.binary(max_size=8),
    value=st.binary(max_size=40),
    reason=st.sampled_from(Reason),
    field=st.none() | st.sampled_from(["lon", "unit (data.unit)"]),
    detail=st.sampled_from(["", "纬度 91 is over 90", "a fault\tof a field"]),
    ingested_ms=st.integers(-62_135_596_800_000, 253_402_300_799_999),
    platform=st.none() | st.sampled_from(["tingshi", "热线"]),
)


@given(letters)
def test_a_dead_letter_comes_back_from_its_headers_as_it_was(letter):
    """Its ingestion time too: the topic's own timestamps are the broker's business and its retention's."""
    assert DeadLetter.from_headers(letter.headers(), letter.key, letter.value) == letter


@pytest.mark.parametrize(
    ("topic", "platform", "shows"),
    [
        ("hotline.tickets", None, True),
        ("hotline.tickets", "calls", False),
        ("hotline.tickets.calls", None, False),
        ("video.events", "eyes", True),
        ("patrol.reports.walks", None, True),
        ("dispatch.feedback", "centre", True),
    ],
)
def test_only_of_a_hotlines_platform_nothing_shows(topic, platform, shows):
    """Whoever reads the dead-letter topic knows it by the headers alone."""
    letter = DeadLetter(topic, 0, 0, 0, None, b'{"lxr":"WX-1"}', Reason.MISSING_FIELD, None, "", 0, platform)
    again = DeadLetter.from_headers(letter.headers(), None, letter.value)
    assert letter.record() == again.record()
    assert again.record().excerpt == ('{"lxr":"WX-1"}' if shows else "")


@pytest.mark.parametrize("header", [None, "calls"])
def test_a_refused_ticket_keeps_the_platform_that_its_header_named(header):
    topic = "hotline.tickets" if header else "hotline.tickets.calls"
    record = SourceRecord(topic, 0, 0, NOON_MS, None, '{"电话": "张三 WX-1"}'.encode(), header)
    (letter,) = Intake(PACK, KEY).take([record]).dead_letters
    assert letter.platform == header
    assert letter.record().excerpt == ""
