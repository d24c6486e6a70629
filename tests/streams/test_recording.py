"""Recordings give back what was written, and tell where they were cut."""

import gzip

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from streams.recording import (
    BadLine,
    RecordedMessage,
    RecordingError,
    decode_line,
    encode_line,
    read_recording,
    write_recording,
)

messages = st.builds(
    RecordedMessage,
    topic=st.sampled_from(["hotline.tickets", "reports"]),
    value=st.binary(max_size=40) | st.sampled_from([b'{"id":"1"}', b"[1, 2]", b"null", b'{"a":NaN}', b'{"x":\n1}']),
    partition=st.none() | st.integers(0, 9),
    offset=st.none() | st.integers(0, 2**62),
    timestamp_ms=st.none() | st.integers(0, 2**50),
    key=st.none() | st.binary(max_size=8),
    headers=st.lists(st.tuples(st.text(max_size=4), st.binary(max_size=4)), max_size=2),
)


@given(messages)
@example(RecordedMessage("t", b'{"base64":"aGk="}'))  # a value that looks like our own escape
@example(RecordedMessage("t", b' {"id":1} '))  # white space round the value is part of it
@example(RecordedMessage("t", b"\xff\xfe"))
def test_what_is_written_is_what_is_read(message):
    line = encode_line(message)
    assert line.count(b"\n") == 1
    assert decode_line(line) == message


def test_json_stands_verbatim_in_the_line():
    line = encode_line(RecordedMessage("t", '{"id": "井盖", "n": 1.50}'.encode()))
    assert '"value":{"id": "井盖", "n": 1.50}}'.encode() in line


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_every_compression_gives_the_records_back_and_the_same_bytes_each_time(tmp_path, ending):
    written = [RecordedMessage("t", b'{"id":"%d"}' % i) for i in range(5000)]
    for name in ("a", "b"):
        assert write_recording(tmp_path / (name + ending), written) == 5000
    assert list(read_recording(tmp_path / ("a" + ending))) == written
    assert (tmp_path / ("a" + ending)).read_bytes() == (tmp_path / ("b" + ending)).read_bytes()


@pytest.mark.parametrize("ending", [".jsonl.gz", ".jsonl.zst"])
def test_a_cut_compression_gives_what_was_readable_and_one_fault(tmp_path, ending):
    lines = b"".join(encode_line(RecordedMessage("t", b'{"id":"%d"}' % (i * 7919))) for i in range(200_000))
    whole = gzip.compress(lines) if ending.endswith("gz") else zstandard.compress(lines)
    path = tmp_path / ("cut" + ending)
    path.write_bytes(whole[: len(whole) // 2])
    *read, last = read_recording(path)
    assert len(read) > 1000
    assert all(isinstance(record, RecordedMessage) for record in read)
    assert isinstance(last, BadLine)
    assert "cut" in last.problem
    assert last.line == len(read) + 1


def test_two_zstandard_frames_are_one_recording(tmp_path):
    path = tmp_path / "two.zst"
    path.write_bytes(b"".join(zstandard.compress(encode_line(RecordedMessage("t", b"%d" % i))) for i in (1, 2)))
    assert [record.value for record in read_recording(path)] == [b"1", b"2"]


def test_a_bad_line_is_named_and_the_others_are_read(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"topic":"t","value":1}\n{"topic":\n\n{"value":2}\n{"topic":"t","value":3}\n{"topic":"t","va')
    read = [r.value if isinstance(r, RecordedMessage) else r.line for r in read_recording(path)]
    assert read == [
        b"1",
        2,
        4,
        b"3",
        6,
    ]


def test_a_missing_recording_is_one_clear_line(tmp_path):
    with pytest.raises(RecordingError, match=r"nowhere\.jsonl: cannot be read \(No such file"):
        list(read_recording(tmp_path / "nowhere.jsonl"))


@pytest.mark.parametrize(
    "field",
    [
        '"partition":-1',
        '"partition":2147483648',
        '"offset":-1',
        '"offset":9223372036854775808',
        '"timestamp":253402300800000',
        '"timestamp":1e3',
        '"timestamp":"2026"',
    ],
)
def test_a_number_that_no_kafka_record_can_have_is_a_fault_of_its_line(tmp_path, field):
    """Further on it would not fit its column, and end the replay of all the others."""
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"topic":"t","value":1}\n{"topic":"t","value":2,%s}\n' % field.encode())
    good, bad = read_recording(path)
    assert good.value == b"1"
    assert (bad.line, field.split('"')[1] in bad.problem) == (2, True)
