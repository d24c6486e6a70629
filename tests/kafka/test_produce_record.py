"""A recording goes into Kafka and comes out again: the same records, in the same order, with the same times."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from brokers import Broker, Embedded
from click.testing import CliRunner, Result
from confluent_kafka import Consumer, TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.commands.produce import produce
from agents.commands.record import record
from sinks.playback import (
    LagLimit,
    PlaybackError,
    newest_time_ms,
    produce_recording,
    shift_to,
    shift_to_now_ms,
    with_timestamps,
)
from sinks.recorder import TopicRecorder
from streams.pack import load_pack
from streams.platform_records import record_times
from streams.platform_writer import PlatformWriter
from streams.recording import BadLine, RecordedMessage, read_recording, write_recording

AT_MS = 1_314_489_600_000  # 2011-08-28T00:00:00Z
SOURCES = ["iot.readings", "video.events", "hotline.tickets", "patrol.reports"]


def message(number: int, topic: str = "hotline.tickets", **fields: object) -> RecordedMessage:
    at = datetime.fromtimestamp((AT_MS + 1000 * number) / 1000, UTC).isoformat()
    value = orjson.dumps({"id": f"{number}", "time": at, "category": "路灯"})
    usual: dict[str, object] = {"value": value, "timestamp_ms": AT_MS + 1000 * number, "key": b"%d" % number}
    return RecordedMessage(topic, **{**usual, **fields})  # type: ignore[arg-type]


def day(count: int = 300) -> list[RecordedMessage]:
    """Records of all sources in the order of time, with the odd ones among them."""
    messages = [message(n, SOURCES[n % 4], partition=n % 3) for n in range(count)]
    messages[7] = message(7, value=b"{broken", partition=0)
    messages[8] = message(8, value=b"\x00\xff\xfe", key=None, partition=1)
    messages[9] = message(9, value=b"", headers=[("reason", b"malformed_json"), ("detail", b"\xff")], partition=2)
    messages[10] = message(10, value=b"x" * 700_000, partition=2)
    return messages


def read(path: Path) -> list[RecordedMessage | BadLine]:
    return list(read_recording(path))


def run_produce(*arguments: str | Path) -> Result:
    return CliRunner().invoke(produce, [str(argument) for argument in arguments])


def run_record(*arguments: str | Path) -> Result:
    return CliRunner().invoke(record, [str(argument) for argument in arguments])


def create_topics(broker: Broker, prefix: str, topics: Sequence[str] = SOURCES, partitions: int = 3) -> None:
    for topic in topics:
        broker.create_topic(prefix + topic, partitions, {"retention.ms": "-1", "max.message.bytes": str(17 << 20)})


# ------------------------------------------------------------------------------------------- there and back again


def test_a_recording_comes_back_as_it_was(broker, topic_prefix, tmp_path):
    create_topics(broker, topic_prefix)
    there, back = tmp_path / "there.jsonl", tmp_path / "back.jsonl.zst"
    write_recording(there, day())
    at = ["--brokers", broker.bootstrap, "--prefix", topic_prefix]
    played = run_produce(there, *at, "--json")
    assert played.exit_code == 0, played.output
    summary = json.loads(played.output)
    assert (summary["records"], summary["delivered"], summary["refused"]) == (300, 300, {})

    recorded = run_record("--topics", ",".join(SOURCES), "--out", back, "--until-end", *at)
    assert recorded.exit_code == 0, recorded.output
    offsets: dict[tuple[str, int | None], int] = defaultdict(int)
    expected = []
    for sent in day():
        place = (sent.topic, sent.partition)
        expected.append(
            RecordedMessage(
                sent.topic, sent.value, sent.partition, offsets[place], sent.timestamp_ms, sent.key, sent.headers
            )
        )
        offsets[place] += 1
    assert read(back) == expected


def test_what_has_no_partition_goes_by_its_key_and_what_has_no_key_keeps_its_order(broker, topic_prefix):
    create_topics(broker, topic_prefix, ["hotline.tickets"], partitions=4)
    keyed = [message(n, key=b"caller-%d" % (n % 7)) for n in range(70)]
    bare = [message(n, key=None) for n in range(70, 100)]
    high = [message(100, key=b"caller-1", partition=9)]  # there is no such partition
    assert produce_recording([*keyed, *bare, *high], broker.bootstrap, topic_prefix).delivered == 101
    back: list[RecordedMessage] = []
    with TopicRecorder(broker.bootstrap, topic_prefix, ["hotline.tickets"]) as recorder:
        recorder.run(back.append, until_end=True)
    partitions = defaultdict(set)
    for each in back:
        partitions[each.key].add(each.partition)
    assert all(len(places) == 1 for places in partitions.values())
    assert len(set().union(*partitions.values())) > 1
    assert [each.value for each in back] == [each.value for each in [*keyed, *bare, *high]]


def test_a_record_without_a_timestamp_is_sent_with_its_own_time(broker, topic_prefix):
    create_topics(broker, topic_prefix, ["hotline.tickets"], partitions=1)
    by_hand = [
        RecordedMessage("hotline.tickets", b"no time yet"),
        RecordedMessage("hotline.tickets", b'[{"time": 1314489600000}, {"time": "2011-08-28T02:00:01+02:00"}]'),
        RecordedMessage("hotline.tickets", b"{broken"),
        RecordedMessage("hotline.tickets", b'{"time": "2999-01-01T00:00:00Z"}'),  # Kafka would refuse it
        RecordedMessage("hotline.tickets", b'{"time": "2011-08-27T00:00:00Z"}'),
    ]
    timed = with_timestamps(by_hand, now_ms=1_790_000_000_000)
    assert produce_recording(timed, broker.bootstrap, topic_prefix).failures == {}
    back: list[RecordedMessage] = []
    with TopicRecorder(broker.bootstrap, topic_prefix, ["hotline.tickets"]) as recorder:
        recorder.run(back.append, until_end=True)
    assert [each.timestamp_ms for each in back] == [1, AT_MS + 1000, AT_MS + 1000, AT_MS + 1000, AT_MS - 86_400_000]
    assert [each.value for each in back] == [each.value for each in by_hand]


def test_recording_goes_on_with_what_arrives_until_there_are_enough(broker, topic_prefix):
    """What stands there is in the order of time; what comes while recording follows as it comes."""
    create_topics(broker, topic_prefix, ["video.events"], partitions=2)
    before = [message(n, "video.events", partition=n % 2) for n in range(6)]
    after = [message(n, "video.events", partition=0) for n in range(6, 9)]
    produce_recording(before, broker.bootstrap, topic_prefix)
    back: list[RecordedMessage] = []

    def write(each: RecordedMessage) -> None:
        back.append(each)
        if len(back) == len(before):
            produce_recording(after, broker.bootstrap, topic_prefix)

    with TopicRecorder(broker.bootstrap, topic_prefix, ["video.events"]) as recorder:
        recorder.run(write, records=9)
    assert [each.value for each in back] == [each.value for each in before + after]


@pytest.mark.parametrize("records", [1, 5])
def test_so_many_records_are_written_and_no_more(broker, topic_prefix, tmp_path, records):
    create_topics(broker, topic_prefix, ["video.events"])
    produce_recording([message(n, "video.events") for n in range(20)], broker.bootstrap, topic_prefix)
    out = tmp_path / "some.jsonl"
    options = ["--topics", "video.events", "--out", out, "--records", str(records)]
    assert run_record(*options, "--brokers", broker.bootstrap, "--prefix", topic_prefix).exit_code == 0
    assert len(read(out)) == records


def test_empty_topics_make_an_empty_recording(broker, topic_prefix, tmp_path):
    create_topics(broker, topic_prefix, ["video.events"])
    out = tmp_path / "none.jsonl.gz"
    options = ["--topics", "video.events", "--out", out, "--until-end"]
    recorded = run_record(*options, "--brokers", broker.bootstrap, "--prefix", topic_prefix)
    assert recorded.exit_code == 0, recorded.output
    assert read(out) == []


# -------------------------------------------------------------------------------------- what is refused or missing


def test_real_kafka_refusing_one_record_loses_no_other(kafka, topic_prefix, tmp_path):
    """A broker refuses a whole batch for one record, so what may be refused travels alone."""
    kafka.create_topic(topic_prefix + "hotline.tickets", 1, {"retention.ms": "-1"})  # takes up to 1 MiB
    messages = [message(n) for n in range(20)]
    messages[5] = message(5, timestamp_ms=4_102_444_800_000)
    messages[6] = message(6, value=os.urandom(20 << 20))
    messages[7] = message(7, value=os.urandom(10 << 20))
    there = tmp_path / "there.jsonl"
    write_recording(there, messages)
    played = run_produce(there, "--brokers", kafka.bootstrap, "--prefix", topic_prefix, "--json")
    assert played.exit_code == 1
    refused = json.loads(played.stdout)["refused"]
    assert refused == {"INVALID_TIMESTAMP": 1, "MSG_SIZE_TOO_LARGE": 2}
    back: list[RecordedMessage] = []
    with TopicRecorder(kafka.bootstrap, topic_prefix, ["hotline.tickets"]) as recorder:
        recorder.run(back.append, until_end=True)
    assert [each.value for each in back] == [each.value for n, each in enumerate(messages) if n not in (5, 6, 7)]


def test_a_ten_megabyte_message_comes_through_a_real_kafka(kafka, topic_prefix):
    create_topics(kafka, topic_prefix, ["hotline.tickets"], partitions=1)
    large = os.urandom(10 << 20)
    assert produce_recording([message(1, value=large)], kafka.bootstrap, topic_prefix).delivered == 1
    back: list[RecordedMessage] = []
    with TopicRecorder(kafka.bootstrap, topic_prefix, ["hotline.tickets"]) as recorder:
        recorder.run(back.append, until_end=True)
    assert [each.value for each in back] == [large]


def test_a_missing_topic_is_one_line_with_the_remedy(kafka, topic_prefix, tmp_path):
    there = tmp_path / "there.jsonl"
    write_recording(there, [message(1)])
    at = ["--brokers", kafka.bootstrap, "--prefix", topic_prefix]
    played = run_produce(there, *at)
    recorded = run_record("--topics", "hotline.tickets", "--out", tmp_path / "back.jsonl", "--until-end", *at)
    for done in (played, recorded):
        assert done.exit_code == 1
        assert f"topic {topic_prefix}hotline.tickets does not exist at {kafka.bootstrap}" in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "back.jsonl").exists()


def test_a_cut_recording_is_sent_up_to_the_cut_and_the_place_is_told(embedded_kafka, topic_prefix, tmp_path):
    there = tmp_path / "cut.jsonl"
    write_recording(there, [message(n) for n in range(3)])
    there.write_bytes(there.read_bytes()[:-20])
    played = run_produce(there, "--brokers", embedded_kafka.bootstrap, "--prefix", topic_prefix)
    assert played.exit_code == 1
    assert "2 of 2 records delivered" in played.stdout
    assert f"{there}:3: " in played.stderr


def test_a_recording_that_is_not_there_is_told_before_anything_is_sent(embedded_kafka, topic_prefix, tmp_path):
    there = tmp_path / "there.jsonl"
    write_recording(there, [message(1)])
    create_topics(embedded_kafka, topic_prefix, ["hotline.tickets"], partitions=1)
    played = run_produce(there, tmp_path / "no.jsonl", "--brokers", embedded_kafka.bootstrap, "--prefix", topic_prefix)
    assert played.exit_code == 1
    assert f"{tmp_path / 'no.jsonl'}: cannot be read" in played.stderr
    with TopicRecorder(embedded_kafka.bootstrap, topic_prefix, ["hotline.tickets"]) as recorder:
        assert recorder.run(lambda _: None, until_end=True).records == 0


@pytest.mark.parametrize(
    "wrong",
    [["--speed", "0"], ["--speed", "fast"], ["--speed", "inf"], ["--max-lag", "2MB"], ["--max-lag", "0"]],
    ids=" ".join,
)
def test_wrong_usage_exits_2(wrong, tmp_path):
    assert run_produce(tmp_path / "any.jsonl", *wrong).exit_code == 2


def test_a_full_disk_is_one_line(embedded_kafka, topic_prefix):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    create_topics(embedded_kafka, topic_prefix, ["video.events"])
    produce_recording([message(n, "video.events") for n in range(20)], embedded_kafka.bootstrap, topic_prefix)
    at = ["--brokers", embedded_kafka.bootstrap, "--prefix", topic_prefix]
    recorded = run_record("--topics", "video.events", "--out", "/dev/full", "--until-end", *at)
    assert recorded.exit_code == 1
    assert "/dev/full: cannot be written (No space left on device)" in recorded.stderr


# --------------------------------------------------------------------------------------------------------- pacing


def test_the_embedded_broker_drops_nothing_that_its_consumer_has_not_had(embedded_kafka: Embedded, topic_prefix):
    """9 MB through a partition that holds 5: the producer waits for the consumer, and all of it arrives."""
    create_topics(embedded_kafka, topic_prefix, ["video.events"], partitions=1)
    topic, group = topic_prefix + "video.events", topic_prefix + "slow"
    messages = [message(n, "video.events", value=os.urandom(30_000), partition=0) for n in range(300)]
    consumer = Consumer(
        {
            "bootstrap.servers": embedded_kafka.bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "error",  # a dropped record would be an error, not a jump
            "fetch.wait.max.ms": 10,
        }
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    taken: list[bytes] = []
    asked = 0
    limit = LagLimit(embedded_kafka.bootstrap, group, max_bytes=1_000_000)

    def pause() -> bool:
        """The consumer runs when the producer asks; it commits only now and then."""
        nonlocal asked
        asked += 1
        while (got := consumer.poll(0.02)) is not None:
            assert got.error() is None, got.error()
            taken.append(got.value())
        if asked % 5 == 0 and taken:
            consumer.commit(offsets=[TopicPartition(topic, 0, len(taken))], asynchronous=False)
        return limit()

    try:
        played = produce_recording(
            messages, embedded_kafka.bootstrap, topic_prefix, pause=pause, delivered=limit.delivered
        )
        assert played.delivered == 300
        while len(taken) < 300:
            got = consumer.poll(10)
            assert got is not None
            assert got.error() is None, got.error()
            taken.append(got.value())
    finally:
        consumer.close()
        limit.close()
    assert taken == [each.value for each in messages]


# ---------------------------------------------------------------------------------------------------------- times

times = st.one_of(
    st.integers(0, 4_102_444_800_000),
    st.datetimes(datetime(1971, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC)).map(
        lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000).isoformat()
    ),
)
elements = st.fixed_dictionaries({"id": st.text(max_size=5), "time": times, "lon": st.floats(-180, 180)})


@settings(max_examples=30)
@given(st.lists(elements, min_size=1, max_size=4), st.booleans(), st.integers(-(10**12), 10**11))
def test_a_shift_moves_every_time_by_as_much_and_nothing_else(values, as_array, shift_ms):
    value = orjson.dumps(values if as_array else values[0])
    (moved,) = shift_to([RecordedMessage("iot.readings", value, timestamp_ms=5)], shift_ms)
    assert moved.timestamp_ms == 5 + shift_ms
    before = orjson.loads(value) if as_array else [orjson.loads(value)]
    after = orjson.loads(moved.value) if as_array else [orjson.loads(moved.value)]
    for old, new in zip(before, after, strict=True):
        old_ms = newest_time_ms(orjson.dumps(old))
        assert newest_time_ms(orjson.dumps(new)) == old_ms + shift_ms
        assert type(old["time"]) is type(new["time"])
        assert {**new, "time": None} == {**old, "time": None}


@pytest.mark.parametrize(
    "value",
    [b"{broken", b"", b"\xff", b"3", b'{"time": "yesterday"}', b'{"time": "2011-08-28T00:00:00"}', b'{"time":  true}'],
)
def test_a_value_whose_time_cannot_be_read_is_left_byte_for_byte(value):
    (moved,) = shift_to([RecordedMessage("hotline.tickets", value)], 1000)
    assert moved.value == value


def test_a_shift_leaves_the_values_of_internal_topics_alone():
    (moved,) = shift_to([RecordedMessage("incidents", b'{"time": 5}', timestamp_ms=1)], 1000)
    assert (moved.value, moved.timestamp_ms) == (b'{"time": 5}', 1001)


def test_the_newest_record_becomes_now_and_one_broken_clock_moves_nothing():
    now_ms = 1_790_000_000_000
    messages = [message(n) for n in range(5)]
    assert shift_to_now_ms(messages, now_ms) == now_ms - AT_MS - 4000
    broken = [*messages, RecordedMessage("hotline.tickets", b'{"time": "2999-01-01T00:00:00Z"}')]
    assert shift_to_now_ms(broken, now_ms) == now_ms - AT_MS - 4000
    assert shift_to_now_ms(broken[5:], now_ms) < 0
    assert shift_to_now_ms([], now_ms) == 0


SAMPLE = load_pack(Path(__file__).resolve().parents[2] / "packs" / "sample")
PLATFORMS = record_times(SAMPLE)


def of_platforms(at_ms: int) -> list[RecordedMessage]:
    """A gauge's array of two on its own topic, a camera's envelope by the header; camera and device have 20 digits."""
    gauge, camera = PlatformWriter(SAMPLE, "tingwu"), PlatformWriter(SAMPLE, "tingshi")
    alarms = [{"id": f"{n}", "time": at_ms + n * 1000, "device_id": "d", "alarm": "gas_leak"} for n in range(2)]
    seen = {"id": "e", "time": at_ms, "camera_id": "c", "event_type": "crowd", "confidence": 0.5}
    values = [gauge.write_batch(alarms), camera.write(seen) | {"serial": 99010000001320000001}]
    gauges, cameras = (json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() for value in values)
    return [
        RecordedMessage(gauge.topic, gauges, timestamp_ms=at_ms),
        RecordedMessage("video.events", cameras, timestamp_ms=at_ms, headers=[("platform", b"tingshi")]),
    ]


@given(st.integers(-(10**6), 10**6))
def test_a_shift_moves_the_times_of_platforms_where_and_as_they_say_them(shift_s):
    at_ms = 1_780_273_800_000
    moved = list(shift_to(of_platforms(at_ms), shift_s * 1000, PLATFORMS))
    assert moved == of_platforms(at_ms + shift_s * 1000)


def test_without_a_timestamp_a_platforms_record_comes_at_its_own_newest_time():
    records = [replace(record, timestamp_ms=None) for record in of_platforms(1_780_273_800_000)]
    timed = with_timestamps(records, now_ms=1_790_000_000_000, platforms=PLATFORMS)
    assert [record.timestamp_ms for record in timed] == [1_780_273_801_000, 1_780_273_800_000]
    assert shift_to_now_ms(records, 1_790_000_000_000, PLATFORMS) == 1_790_000_000_000 - 1_780_273_801_000


@pytest.mark.parametrize(
    "value", [b"{broken", b"5", b"[[]]", b'{"head": []}', b'{"head": {"ts": "noon"}}', b"[" * 99_999]
)
def test_what_no_mapping_finds_a_time_in_is_left_byte_for_byte(value):
    for topic in ("iot.readings.tingwu", "video.events.tingshi"):
        (moved,) = shift_to([RecordedMessage(topic, value)], 1000, PLATFORMS)
        assert moved.value == value


def test_a_header_of_no_platform_of_the_pack_leaves_the_value_as_we_name_it():
    record = RecordedMessage("iot.readings", b'{"time":5}', headers=[("platform", b"somebody")])
    assert [moved.value for moved in shift_to([record], 1000, PLATFORMS)] == [b'{"time":1005}']


def test_the_times_of_a_platform_are_not_guessed_without_a_pack():
    for one in of_platforms(0):
        with pytest.raises(PlaybackError, match="only a city pack tells where it says its times; name one"):
            list(shift_to([one], 1000))
    with pytest.raises(PlaybackError, match=r"\(iot.readings somebody\)"):
        list(shift_to([RecordedMessage("iot.readings.somebody", b"{}")], 1000, PLATFORMS))
