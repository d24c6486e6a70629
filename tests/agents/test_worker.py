"""The whole service: real Faust, a real broker, the real ClickHouse engine, and the replay of the log as the oracle."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from brokers import Broker
from confluent_kafka import Consumer, TopicPartition
from running_worker import Service, service, until

from sinks.clickhouse import ClickHouseSink
from sinks.clickhouse_front import FrontProcess
from sinks.playback import LagLimit, produce_recording, with_timestamps
from sinks.recorder import TopicRecorder
from streams.error_model import read_error_model
from streams.messages import ASSIGNMENTS, DEAD_LETTERS, INCIDENTS, REPORTS, SUSPECTED_INCIDENTS
from streams.pack import load_pack
from streams.privacy import TEST_KEY
from streams.recording import RecordedMessage, read_recording
from streams.replay import Replay
from streams.simulation import simulate

SAMPLE = Path(__file__).resolve().parents[2] / "packs" / "sample"


class Consuming:
    """A dispatch centre: reads the decided topics as they come, from their beginning."""

    def __init__(self, service: Service) -> None:
        self.values: dict[str, dict[str, dict[str, Any]]] = {INCIDENTS: {}, SUSPECTED_INCIDENTS: {}, ASSIGNMENTS: {}}
        self.dead_letters: dict[str, bytes] = {}
        self._prefix = service.prefix
        self._consumer = Consumer({"bootstrap.servers": service.broker.bootstrap, "group.id": "dispatch-centre"})
        self._consumer.assign(
            [
                TopicPartition(topic.name, partition, 0)
                for topic in service.topics
                if topic.name.removeprefix(service.prefix) in (*self.values, DEAD_LETTERS)
                for partition in range(topic.partitions)
            ]
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Consuming:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        idle = False
        while not (self._ended.is_set() and idle):
            messages = self._consumer.consume(1000, timeout=0.5)
            idle = not messages
            for message in messages:
                assert message.error() is None
                topic = message.topic().removeprefix(self._prefix)
                value = message.value()
                if topic in (INCIDENTS, SUSPECTED_INCIDENTS):
                    self.values[topic][message.key().decode()] = json.loads(value)
                elif topic == ASSIGNMENTS:
                    assignment = json.loads(value)
                    self.values[topic][answer_key(assignment)] = assignment
                else:
                    headers = {name: data.decode() for name, data in message.headers()}
                    origin = ":".join(headers[name] for name in ("topic", "partition", "offset", "index"))
                    self.dead_letters[origin] = value
        self._consumer.close()


def assert_told(consuming: Consuming, incidents: dict[str, Any]) -> None:
    """Dispatch centres are told of all but those that are suspected, which stand on a topic of their own."""
    suspected = {key for key, one in incidents.items() if one["status"] == "suspected"}
    assert consuming.values[INCIDENTS] == {key: one for key, one in incidents.items() if key not in suspected}
    assert {key: consuming.values[SUSPECTED_INCIDENTS].get(key) for key in suspected} == {
        key: incidents[key] for key in suspected
    }


def recorded_day() -> list[RecordedMessage]:
    start = datetime.fromisoformat("2026-06-01T00:00:00+08:00")
    messages = simulate(load_pack(SAMPLE), read_error_model(), seed=3, start=start, hours=8).messages
    half = len(messages) // 2
    return [*messages[:half], one_bad_in_ten_thousand(messages[half].timestamp_ms or 0), *messages[half:]]


def one_bad_in_ten_thousand(at_ms: int) -> RecordedMessage:
    """A gateway's array of readings, one of which has a latitude that is none."""
    readings = [
        {"id": f"R{i}", "time": at_ms, "device_id": "D", "metric": "level_m", "value": 0.1, "lon": 119.95, "lat": 38.75}
        for i in range(10_000)
    ]
    readings[7_000]["lat"] = 91
    return RecordedMessage("iot.readings", json.dumps(readings).encode(), timestamp_ms=at_ms, key=b"gateway")


def ten_megabytes(at_ms: int) -> RecordedMessage:
    """More than any message may have; the embedded broker cannot hold it."""
    return RecordedMessage("hotline.tickets", b'{"id":"' + b"x" * 10_000_000 + b'"}', timestamp_ms=at_ms, key=b"big")


def boston(city_data: Path) -> list[RecordedMessage]:
    read = read_recording(city_data / "boston" / "recording-2011q3.jsonl.gz")
    messages = [message for message in read if isinstance(message, RecordedMessage)]
    return list(with_timestamps(messages, now_ms=2**62))


@pytest.fixture(params=["a simulated day", "boston"])
def case(request: pytest.FixtureRequest) -> Iterator[tuple[Path, list[RecordedMessage]]]:
    if request.param == "boston":
        yield request.getfixturevalue("boston_pack"), boston(request.getfixturevalue("city_data"))
    else:
        yield SAMPLE, recorded_day()


EMBEDDED_RECORDS = 6_000
"""Of Boston's recording on the embedded broker, which hands out one small record batch at a time: the whole takes it
minutes.  On Kafka all 31,802 are played."""


def answer_key(assignment: dict[str, Any]) -> str:
    """A correction is another answer to the same report."""
    return f"{assignment['origin']}#{assignment['revision']}"


def first_answers(assignments: dict[str, Any]) -> list[Any]:
    return [one for one in assignments.values() if one["revision"] == 0]


def by_id(rows: list[Any], name: str) -> dict[str, Any]:
    found = {row[name]: row for row in rows}
    assert len(found) == len(rows), f"{name} is unique"
    return found


def recorded_log(service: Service) -> list[RecordedMessage]:
    log: list[RecordedMessage] = []
    with TopicRecorder(service.broker.bootstrap, service.prefix, [REPORTS]) as recorder:
        recorder.run(log.append, until_end=True)
    return log


def replayed(log: list[RecordedMessage], city: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What replay makes of the log: assignments by origin and revision, incidents by id."""
    replay = Replay(load_pack(city), TEST_KEY)
    assignments, _ = replay.take(log)
    return (
        {answer_key(each): each for each in msgspec.to_builtins(assignments)},
        {each.incident_id: msgspec.to_builtins(each) for each in replay.incidents()},
    )


@pytest.mark.timeout(900)
def test_a_worker_killed_and_restarted_leaves_exactly_what_replay_of_the_log_gives(
    broker: Broker, topic_prefix: str, case: tuple[Path, list[RecordedMessage]], tmp_path: Path
) -> None:
    """In ClickHouse and on the topics stand the same incidents and assignments, and no element is missing."""
    city, messages = case
    if broker.kind == "embedded":
        messages = messages[:EMBEDDED_RECORDS]
    else:
        messages = [*messages, ten_megabytes(messages[-1].timestamp_ms or 0)]
    with service(broker, topic_prefix, city, tmp_path) as running, Consuming(running) as consuming:
        running.start()
        limit = LagLimit(broker.bootstrap, running.group, max_bytes=2 << 20)
        half = len(messages) // 2
        produce_recording(messages[:half], broker.bootstrap, topic_prefix, pause=limit, delivered=limit.delivered)
        until(lambda: running.total("citybrain_outcomes_total") <= half / 10, "some reports are decided")
        running.kill()
        produce_recording(messages[half:], broker.bootstrap, topic_prefix)
        running.start()
        running.wait_until_drained()
        assert running.stop() == 0
        database = running.database()
        log = recorded_log(running)

    expected_assignments, expected_incidents = replayed(log, city)
    assert len(expected_incidents) > 100
    answers = {answer_key(row): row for row in database["assignments"]}
    assert len(answers) == len(database["assignments"])
    assert answers == expected_assignments
    assert by_id(database["incidents"], "incident_id") == expected_incidents
    assert consuming.values[ASSIGNMENTS] == expected_assignments
    assert_told(consuming, expected_incidents)

    # By report id, nothing of the source recording is missing: the replay of the sources says what there is.
    source_replay = Replay(load_pack(city), TEST_KEY)
    from_sources, dead_letters = source_replay.take(messages)
    counts = source_replay.counts
    assert {(a["source"], a["report_id"]) for a in expected_assignments.values()} == {
        (a.source, a.report_id) for a in from_sources
    }
    assert len(first_answers(expected_assignments)) == counts.outcomes.total()
    assert sorted(consuming.dead_letters.values()) == sorted(letter.value for letter in dead_letters)
    assert database["counts"]["dead_letters"] == len(dead_letters)
    assert counts.elements == counts.outcomes.total() + len(dead_letters) + counts.quiet_readings


@pytest.mark.timeout(900)
def test_a_second_worker_takes_over_when_the_first_is_killed(kafka: Broker, topic_prefix: str, tmp_path: Path) -> None:
    """Rescaled while reports come in, then one worker gone without a word: the answers are still those of the log."""
    messages = recorded_day()
    front = FrontProcess(tmp_path / "front")
    with service(kafka, topic_prefix, SAMPLE, tmp_path, front.dsn) as first, Consuming(first) as consuming:
        second = first.another()
        try:
            first.start()
            producing = threading.Thread(
                target=produce_recording, args=(messages, kafka.bootstrap, topic_prefix), kwargs={"speed": 3600.0}
            )
            producing.start()
            until(lambda: first.total("citybrain_outcomes_total") <= 20, "the first worker decides")
            second.start()
            first.kill()
            producing.join()
            second.wait_until_drained()
            assert second.stop() == 0
            log = recorded_log(first)
        finally:
            second.end()
    expected_assignments, expected_incidents = replayed(log, SAMPLE)
    sink = ClickHouseSink(front.dsn)
    assert {answer_key(each): each for each in msgspec.to_builtins(sink.assignments())} == expected_assignments
    assert {each.incident_id: msgspec.to_builtins(each) for each in sink.incidents()} == expected_incidents
    sink.close()
    front.stop()
    assert consuming.values[ASSIGNMENTS] == expected_assignments
    assert_told(consuming, expected_incidents)
    from_sources, _ = Replay(load_pack(SAMPLE), TEST_KEY).take(messages)
    assert {(a["source"], a["report_id"]) for a in expected_assignments.values()} == {
        (a.source, a.report_id) for a in from_sources
    }
