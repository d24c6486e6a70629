"""What the intake stage counts of a batch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from brokers import Embedded
from prometheus_client import CollectorRegistry

from agents.metrics import Metrics
from agents.stages import IntakeStage
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
