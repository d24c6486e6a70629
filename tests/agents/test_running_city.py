"""A worker that runs while dispatch centres answer and somebody edits its pack: the log decides, and says so again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from brokers import Embedded
from running_worker import Service, service, until

from sinks.playback import produce_recording
from sinks.recorder import TopicRecorder
from streams.messages import FEEDBACK, REPORTS
from streams.pack import load_pack
from streams.privacy import TEST_KEY
from streams.recording import RecordedMessage
from streams.replay import Replay

SAMPLE = Path(__file__).resolve().parents[2] / "packs" / "sample"
NOON_MS = 1_780_286_400_000
"""2026-06-01T12:00:00+08:00."""
MINUTE_MS = 60_000


def patrol(report_id: str, minute: int, north: int = 0) -> RecordedMessage:
    """A grid worker's report of rubbish, so many hundred metres north of the first."""
    at_ms = NOON_MS + minute * MINUTE_MS
    value = {"id": report_id, "time": at_ms, "worker_id": "W", "category": "06010", "accuracy_m": 5,
             "lon": 119.95, "lat": 38.75 + 0.001 * north}  # fmt: skip
    return RecordedMessage("patrol.reports", json.dumps(value).encode(), timestamp_ms=at_ms, key=b"W")


def feedback(feedback_id: str, action: str, incident_id: str, minute: int) -> RecordedMessage:
    at_ms = NOON_MS + minute * MINUTE_MS
    value = {"id": feedback_id, "time": at_ms, "action": action, "incident_id": incident_id}
    return RecordedMessage(FEEDBACK, json.dumps(value).encode(), timestamp_ms=at_ms, key=incident_id.encode())


def incident_of(message: RecordedMessage) -> str:
    """The name of the incident that a report founds."""
    (assignment,), _ = Replay(load_pack(SAMPLE), TEST_KEY).take([message])
    assert assignment.incident_id is not None
    return assignment.incident_id


class Playing:
    """Sends messages to a running worker and waits until it has done with them."""

    def __init__(self, running: Service) -> None:
        self.running = running

    def send(self, *messages: RecordedMessage) -> None:
        """Reports, which are each decided."""
        due = self.running.total("citybrain_outcomes_total") + len(messages)
        produce_recording(messages, self.running.broker.bootstrap, self.running.prefix)
        until(lambda: self.running.total("citybrain_outcomes_total") != due, "the reports are decided")

    def say(self, *messages: RecordedMessage) -> None:
        due = self.running.total("citybrain_feedback_total") + len(messages)
        produce_recording(messages, self.running.broker.bootstrap, self.running.prefix)
        until(lambda: self.running.total("citybrain_feedback_total") != due, "the feedback is decided")

    def uses(self, version: str) -> bool:
        return self.running.metrics().get(("citybrain_pack_info", frozenset({("version", version)}))) == 1.0

    def refused(self) -> float:
        return self.running.metrics().get(("citybrain_pack_reloads_total", frozenset({("result", "failed")})), 0.0)

    def failed(self) -> float:
        return self.running.total("citybrain_pack_reload_failed")


@pytest.mark.timeout(300)
def test_feedback_and_a_changed_pack_while_a_worker_runs(
    embedded_kafka: Embedded, topic_prefix: str, tmp_path: Path
) -> None:
    """Closed, reopened by whoever calls afterwards; then the catalogue is edited, broken, and mended."""
    city = tmp_path / "city"
    shutil.copytree(SAMPLE, city)
    catalogue = (city / "catalogue.toml").read_text(encoding="utf-8")
    platforms = (city / "city.toml").read_text(encoding="utf-8")
    edited = catalogue.replace('name = "暴露垃圾"', 'name = "露天垃圾"')
    assert edited != catalogue
    former = load_pack(city).version
    incident = incident_of(patrol("P1", 0))
    nobody = incident[:-32] + "0" * 32
    with service(embedded_kafka, topic_prefix, city, tmp_path) as running:
        running.start()
        city_hall = Playing(running)
        city_hall.send(patrol("P1", 0))
        city_hall.say(
            feedback("f1", "accept", incident, 1),
            feedback("f1", "accept", incident, 1),
            feedback("f2", "reopen", incident, 2),
            feedback("f3", "accept", nobody, 2),
            feedback("f4", "close", incident, 10),
        )
        city_hall.send(patrol("P2", 20))

        (city / "catalogue.toml").write_text(edited, encoding="utf-8")
        version = load_pack(city).version
        until(lambda: not city_hall.uses(version), "the changed pack is in use")
        city_hall.send(patrol("P3", 30, north=5))
        (city / "catalogue.toml").write_text(edited + "[[category", encoding="utf-8")
        until(lambda: city_hall.failed() != 1, "the broken pack is told of")
        # Its topic goes on being read, and a key that nobody can even name; neither may end the worker.
        (city / "catalogue.toml").write_text(edited, encoding="utf-8")
        (city / "city.toml").write_text(platforms.partition("[platform.tingshi]")[0], encoding="utf-8")
        until(lambda: city_hall.refused() != 2, "the pack without a platform is refused")
        (city / "city.toml").write_text(platforms + ".".join(["a"] * 2_000) + " = 1\n", encoding="utf-8")
        until(lambda: city_hall.refused() != 3, "what cannot be read at all is refused")
        city_hall.send(patrol("P4", 40, north=10))
        assert city_hall.uses(version)
        (city / "city.toml").write_text(platforms, encoding="utf-8")
        until(lambda: city_hall.failed() != 0, "the mended pack is told of")

        counted = {
            tuple(sorted(dict(labels).items())): value
            for (name, labels), value in running.metrics().items()
            if name == "citybrain_feedback_total" and value
        }
        running.wait_until_drained()
        assert running.stop() == 0
        database = running.database()
        log: list[RecordedMessage] = []
        with TopicRecorder(embedded_kafka.bootstrap, topic_prefix, [REPORTS]) as recorder:
            recorder.run(log.append, until_end=True)

    assert counted == {
        (("action", "accept"), ("result", "applied")): 1,
        (("action", "accept"), ("result", "repeated")): 1,
        (("action", "accept"), ("result", "unknown_incident")): 1,
        (("action", "close"), ("result", "applied")): 1,
        (("action", "reopen"), ("result", "illegal_transition")): 1,
    }
    stands: list[dict[str, Any]] = sorted(database["incidents"], key=lambda one: one["opened_at"])
    assert [(one["status"], one["category_name"], one["pack_version"], one["version"]) for one in stands] == [
        ("open", "暴露垃圾", former, 4),
        ("open", "露天垃圾", version, 1),
        ("open", "露天垃圾", version, 1),
    ]
    outcomes = {one["report_id"]: one["outcome"] for one in database["assignments"]}
    assert outcomes == {"P1": "opened", "P2": "reopened", "P3": "opened", "P4": "opened"}
    assert database["counts"]["dead_letters"] == 2
    log_lines = running.log.read_text(encoding="utf-8")
    assert "no longer has tingshi (video) of this worker's platforms" in log_lines
    assert "RecursionError" in log_lines

    # Whoever has today's pack, or none, decides from the log what was decided then.
    replay = Replay(load_pack(SAMPLE), TEST_KEY)
    replay.take(log)
    again = sorted((msgspec.to_builtins(one) for one in replay.incidents()), key=lambda one: one["opened_at"])
    assert again == stands
