"""A week of the sample city, dispatch centres at work, through real Kafka and the real ClickHouse engine."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec
import pytest
from brokers import Kafka, KafkaElsewhere
from running_worker import Service, service

from sinks.playback import produce_recording
from sinks.recorder import TopicRecorder
from streams.error_model import SCENARIOS, read_error_model, shipped_text
from streams.figures import Figures, figures_of
from streams.intake import Intake, SourceRecord
from streams.messages import REPORTS, Outcome, Reason, Status, platform_named
from streams.pack import CityPack, load_pack
from streams.privacy import TEST_KEY
from streams.recording import RecordedMessage
from streams.rehearsal import rehearse
from streams.replay import Replay

SAMPLE = Path(__file__).resolve().parents[2] / "packs" / "sample"
WEEK_H = 168
PLAYED_S = 30
"""How long the week takes: slow enough that sources overtake one another by minutes and not by days."""

_FIGURES = """
import sys, msgspec
from sinks.clickhouse import ClickHouseSink
sink = ClickHouseSink(sys.argv[1])
sys.stdout.buffer.write(msgspec.json.encode(sink.figures()))
sink.close()
"""


def recorded(running: Service, *topics: str) -> list[RecordedMessage]:
    messages: list[RecordedMessage] = []
    with TopicRecorder(running.broker.bootstrap, running.prefix, topics) as recorder:
        recorder.run(messages.append, until_end=True)
    return messages


def views(dsn: str) -> Figures:
    """What the views say, asked by a process of its own: the engine is one process's."""
    done = subprocess.run([sys.executable, "-c", _FIGURES, dsn], capture_output=True, check=True)
    return msgspec.json.decode(done.stdout, type=Figures)


def source_record(message: RecordedMessage) -> SourceRecord:
    assert message.partition is not None
    assert message.offset is not None
    platform = platform_named(message.headers)
    return SourceRecord(
        message.topic, message.partition, message.offset, message.timestamp_ms, message.key, message.value, platform
    )


def counted(figures: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, label: str) -> Counter[str]:
    """A metric's values by one of its labels, where they are not zero."""
    counts: Counter[str] = Counter()
    for (sample, labels), value in figures.items():
        if sample == name and value:
            counts[dict(labels)[label]] += int(value)
    return counts


def the_week(pack: CityPack) -> Sequence[RecordedMessage]:
    model = read_error_model(shipped_text(SCENARIOS["normal-week"]), name="normal-week")
    start = datetime.fromisoformat("2026-06-01T00:00:00+08:00")
    return rehearse(pack, model, seed=6, start=start, hours=WEEK_H).simulation.messages


@pytest.mark.timeout(900)
def test_a_week_with_feedback_shows_all_that_can_happen_and_the_views_say_what_a_slow_count_says(
    kafka: Kafka | KafkaElsewhere, topic_prefix: str, tmp_path: Path
) -> None:
    """Every outcome, status and reason of the contract; ClickHouse and metrics as the replay of the log has them."""
    pack = load_pack(SAMPLE)
    with service(kafka, topic_prefix, SAMPLE, tmp_path) as running:
        running.start()
        produce_recording(the_week(pack), kafka.bootstrap, topic_prefix, speed=WEEK_H * 3600 / PLAYED_S)
        running.wait_until_drained()
        metrics = running.metrics()
        assert running.stop() == 0
        database, from_views = running.database(), views(running.dsn)
        log = recorded(running, REPORTS)
        intake = Intake(pack, TEST_KEY)
        sent = recorded(running, *intake.topics)

    # What the log says, and what was refused before it came there.
    replay = Replay(pack, TEST_KEY)
    assignments, refused_in_the_fold = replay.take(log)
    incidents = replay.incidents()
    batch = intake.take([source_record(message) for message in sent])
    dead_letters = [letter.record() for letter in (*batch.dead_letters, *refused_in_the_fold)]
    answers = [assignment for assignment in assignments if assignment.revision == 0]
    outcomes = Counter(assignment.outcome for assignment in answers)
    reasons = Counter(letter.reason for letter in dead_letters)
    statuses = Counter(incident.status for incident in incidents)

    assert set(outcomes) == set(Outcome)
    assert set(reasons) == set(Reason)
    assert set(statuses) == set(Status)
    assert batch.elements == len(answers) + len(dead_letters) + batch.quiet_readings + sum(
        (replay.counts.quiet_readings, replay.counts.feedback.total(), replay.counts.feedback_repeats)
    )

    assert sorted(database["incidents"], key=lambda one: one["incident_id"]) == msgspec.to_builtins(incidents)
    assert {(one["origin"], one["revision"]): one for one in database["assignments"]} == {
        (one.origin, one.revision): msgspec.to_builtins(one) for one in assignments
    }
    assert from_views == figures_of(incidents, assignments, dead_letters)
    assert counted(metrics, "citybrain_outcomes_total", "outcome") == outcomes
    assert counted(metrics, "citybrain_dead_letters_total", "reason") == reasons
    assert counted(metrics, "citybrain_incidents", "status") == statuses
    assert counted(metrics, "citybrain_messages_total", "source").total() == batch.elements
