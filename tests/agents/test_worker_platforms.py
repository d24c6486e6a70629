"""A worker whose pack has platforms: their topics, the header, and a topic that nobody has made."""

from __future__ import annotations

import json
from pathlib import Path

from brokers import Broker
from running_worker import service, until

from sinks.playback import produce_recording
from streams.pack import load_pack
from streams.platform_writer import PlatformWriter
from streams.recording import RecordedMessage

SAMPLE = Path(__file__).resolve().parents[2] / "packs" / "sample"
AT_MS = 1780273800000


def test_a_worker_reads_a_platforms_own_topic_and_the_header_and_does_not_need_every_topic(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    """The same alarm natively and on the platform's topic counts once; the other platform's topic is missing.

    On a Kafka that makes no topic by itself; the embedded broker would.
    """
    pack = load_pack(SAMPLE)
    alarm = {"id": "a1", "time": AT_MS, "device_id": "IOT-RQ-0001", "alarm": "gas_leak"}
    seen = {
        "id": "e1", "time": AT_MS, "camera_id": "99010000001320000001", "event_type": "fire_smoke", "confidence": 0.9,
    }  # fmt: skip
    tingwu, tingshi = PlatformWriter(pack, "tingwu"), PlatformWriter(pack, "tingshi")
    messages = [
        RecordedMessage("iot.readings", json.dumps(alarm).encode(), timestamp_ms=AT_MS),
        RecordedMessage(tingwu.topic, json.dumps(tingwu.write(alarm)).encode(), timestamp_ms=AT_MS),
        RecordedMessage(tingwu.topic, b'{"msgId": 5}', timestamp_ms=AT_MS),
        RecordedMessage(
            "video.events",
            json.dumps(tingshi.write(seen)).encode(),
            timestamp_ms=AT_MS,
            headers=[("traceparent", b"00"), ("platform", b"tingshi")],
        ),
    ]
    with service(kafka, topic_prefix, SAMPLE, tmp_path, own_topics=False) as running:
        kafka.create_topic(topic_prefix + tingwu.topic, 2, None)
        running.start()
        produce_recording(messages, kafka.bootstrap, topic_prefix)
        until(lambda: running.total("citybrain_messages_total") < len(messages), "all are read")
        until(
            lambda: running.total("citybrain_rows_written_total") < 6, "two incidents, three assignments, a dead letter"
        )
        read = {
            dict(labels)["source"]: value
            for (name, labels), value in running.metrics().items()
            if name == "citybrain_messages_total" and value
        }
        assert running.stop() == 0
        database = running.database()
    assert read == {"iot": 3, "video": 1}
    topics = sorted((one["origin"].split(":")[0], one["outcome"]) for one in database["assignments"])
    assert [topic for topic, _ in topics] == ["iot.readings", tingwu.topic, "video.events"]
    assert sorted(outcome for _, outcome in topics) == ["opened", "opened", "repeat"]
    assert database["counts"]["dead_letters"] == 1
    assert sorted(one["report_count"] for one in database["incidents"]) == [1, 1]
