"""What the intake stage counts of a batch, and what it says of its senders."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from brokers import Embedded
from prometheus_client import CollectorRegistry

from agents.log_lines import fields_of, message_of
from agents.metrics import Metrics
from agents.stages import IntakeStage
from geo.datum import from_wgs84
from sinks.kafka import KafkaSink
from streams.intake import IntakeLimits, IntakePack
from streams.pack import load_pack
from streams.privacy import TEST_KEY

SAMPLE = Path(__file__).resolve().parents[2] / "packs" / "sample"
START_MS = 1_780_000_000_000


@dataclass
class Sent:
    """A record as aiokafka gives it."""

    offset: int
    value: bytes
    timestamp: int = START_MS
    key: bytes | None = None
    headers: list[tuple[str, bytes]] = field(default_factory=list)


def test_tickets_without_coordinates_are_counted_placed_or_unplaced(embedded_kafka: Embedded, topic_prefix: str):
    embedded_kafka.create_topic(f"{topic_prefix}reports", 4)
    metrics, kafka = Metrics(CollectorRegistry()), KafkaSink(embedded_kafka.bootstrap)
    stage = IntakeStage(IntakePack(load_pack(SAMPLE)), TEST_KEY, IntakeLimits(), kafka, topic_prefix, 4, metrics)

    def counted() -> list[float | None]:
        names = ("placed", "unplaced")
        return [metrics.registry.get_sample_value("citybrain_places_total", {"result": name}) for name in names]

    assert counted() == [0, 0]
    said = [
        {"address": "鼓楼路十二号附近"},
        {"address": "路口", "text": "青塘菜市场门口"},
        {"address": "无名巷"},
        {"address": "青塘菜市场", "lon": 119.95, "lat": 38.75},
    ]
    common = {"time": START_MS, "category": "垃圾未清运"}
    values = [json.dumps({"id": f"T{n}"} | common | some).encode() for n, some in enumerate(said)]
    kafka.wait(stage.take("hotline.tickets", 0, [Sent(n, value) for n, value in enumerate(values)]))
    kafka.close()
    assert counted() == [2, 1]


def test_a_source_that_sends_another_datum_is_named_once_in_the_log_and_stands_in_the_metric(
    embedded_kafka: Embedded, topic_prefix: str, caplog: pytest.LogCaptureFixture
):
    """Cameras that the platform says to be in WGS-84 are placed in GCJ-02; then the pack is set right."""
    embedded_kafka.create_topic(f"{topic_prefix}reports", 4)
    metrics, kafka = Metrics(CollectorRegistry()), KafkaSink(embedded_kafka.bootstrap)
    made = IntakePack(load_pack(SAMPLE))
    stage = IntakeStage(made, TEST_KEY, IntakeLimits(), kafka, topic_prefix, 4, metrics)

    def offsets() -> dict[tuple[str, ...], float]:
        (family,) = [one for one in metrics.registry.collect() if one.name == "citybrain_datum_offset_metres"]
        return {tuple(sample.labels.values()): sample.value for sample in family.samples}

    well = offsets()
    assert set(well.values()) == {0}
    cameras = [device for device in made.pack.devices.values() if device.kind == "camera"]
    sent = []
    for number, camera in enumerate(cameras):
        at_ms = START_MS + number * 120_000
        lon, lat = (float(one) for one in from_wgs84(camera.lon, camera.lat, "gcj02"))
        event = {
            "id": f"V{number}", "time": at_ms, "camera_id": camera.id, "event_type": "garbage_exposed",
            "confidence": 0.9, "lon": lon, "lat": lat, "crs": "wgs84", "platform": "13987654321",
        }  # fmt: skip
        sent.append(Sent(number, json.dumps(event).encode(), at_ms))
    caplog.set_level("INFO", "citybrain.stages")
    for start in range(0, len(sent), 10):
        kafka.wait(stage.take("video.events", 0, sent[start : start + 10]))
    (line,) = caplog.records
    assert line.levelname == "WARNING"
    fields = fields_of(line)
    assert fields.pop("offset_m") == pytest.approx(450, abs=150)
    assert fields == {
        "event": "datum_suspected", "source": "video", "platform": "139****4321", "declared_crs": "wgs84",
        "likely_crs": "gcj02",
    }  # fmt: skip
    assert "declares wgs84 and sends gcj02" in message_of(line)
    assert "13987654321" not in message_of(line)
    assert {labels: value for labels, value in offsets().items() if value} == {
        ("video", "139****4321", "wgs84", "gcj02"): line.offset_m
    }

    caplog.clear()
    stage.use(made)
    (line,) = caplog.records
    assert (line.levelname, fields_of(line)["event"]) == ("INFO", "datum_cleared")
    assert offsets() == well
    kafka.close()
