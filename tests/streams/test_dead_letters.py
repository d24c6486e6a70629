"""Dead letters on their topic and off it again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.dead_letters import DeadLetter
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
)


@given(letters)
def test_a_dead_letter_comes_back_from_its_headers_as_it_was(letter):
    """Its ingestion time too: the topic's own timestamps are the broker's business and its retention's."""
    assert DeadLetter.from_headers(letter.headers(), letter.key, letter.value) == letter
