"""Real worker processes, their topics and their ClickHouse, as the tests of the whole service use them."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from brokers import Broker
from confluent_kafka import Consumer, TopicPartition
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from agents.demo import free_port
from sinks.topics import TopicSpec, topic_table
from streams.pack import load_pack

_PATIENCE_S = 300

_DUMP = """
import sys, msgspec
from sinks.clickhouse import ClickHouseSink
sink = ClickHouseSink(sys.argv[1])
out = {"incidents": sink.incidents(), "assignments": sink.assignments(), "counts": sink.counts()}
sys.stdout.buffer.write(msgspec.json.encode(out))
sink.close()
"""


def until(lacks: Callable[[], object], what: str) -> None:
    """Return as soon as nothing is lacking; the patience only bounds a failure."""
    deadline = time.monotonic() + _PATIENCE_S
    while lacking := lacks():
        assert time.monotonic() < deadline, f"gave up waiting until {what}: {lacking}"
        time.sleep(0.05)


class Service:
    """Topics on a broker, a ClickHouse (embedded, unless ``dsn`` names a server), and one worker at a time.

    The own topics of the pack's platforms are made only with ``own_topics``.
    """

    def __init__(
        self, broker: Broker, prefix: str, city: Path, folder: Path, dsn: str | None = None, *, own_topics: bool = True
    ) -> None:
        self.broker = broker
        self.prefix = prefix
        self.city = city
        self.folder = folder
        self.group = prefix + "group"
        self.dsn = dsn or f"chdb://{folder / 'clickhouse'}"
        self.port = free_port(0)
        self.log = folder / "worker.log"
        self._process: subprocess.Popen[bytes] | None = None
        # Eight partitions: what the embedded broker keeps of each is small.
        platforms = load_pack(city).platform_topics if own_topics else ()
        self.topics: tuple[TopicSpec, ...] = topic_table(
            prefix, partitions=8, shards=3, keep_old=True, platforms=platforms
        )
        for topic in self.topics:
            broker.create_topic(topic.name, topic.partitions, topic.config() if broker.kind == "kafka" else None)

    def another(self) -> Service:
        """The same service seen from a second worker, not yet started."""
        other = copy.copy(self)
        other.port = free_port(0)
        other.log = self.folder / "another-worker.log"
        other._process = None
        return other

    def start(self, *options: str) -> None:
        """Start a worker, with further options, and wait until it has partitions and a database."""
        command = [
            sys.executable, "-m", "agents", "worker", "--test-key", "--city", str(self.city),
            "--brokers", self.broker.bootstrap, "--prefix", self.prefix, "--group", self.group,
            "--clickhouse", self.dsn, "--host", "127.0.0.1", "--port", str(self.port), *options,
        ]  # fmt: skip
        # A killed worker's partitions are given on when its session ends.
        environment = {
            **os.environ,
            "CITYBRAIN_SESSION_TIMEOUT_S": "6",
            "CITYBRAIN_COMMIT_INTERVAL_S": "0.5",
            "CITYBRAIN_PACK_POLL_S": "0.2",
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        until(lambda: not self.is_ready(), "the worker is ready")

    def is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"the worker ended: {self.log.read_text()[-3000:]}"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=10):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def families(self) -> list[Metric]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            return list(text_string_to_metric_families(answer.read().decode()))

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families()
            for sample in family.samples
        }

    def total(self, name: str) -> float:
        return sum(value for (sample, _), value in self.metrics().items() if sample == name)

    def kill(self) -> None:
        """End the worker without a word to it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """End the worker in order; its exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(timeout=60)

    def wait_until_drained(self) -> None:
        """Return when the group has committed all that stands in all topics it reads."""
        asker = Consumer({"bootstrap.servers": self.broker.bootstrap, "group.id": self.group, "log_level": 2})
        places = [
            TopicPartition(topic.name, partition) for topic in self.topics for partition in range(topic.partitions)
        ]

        def behind() -> dict[str, str]:
            assert self._process is not None
            assert self._process.poll() is None, self.log.read_text()[-3000:]
            committed = {(place.topic, place.partition): place.offset for place in asker.committed(places, timeout=20)}
            ends = {
                (place.topic, place.partition): asker.get_watermark_offsets(place, timeout=20)[1] for place in places
            }
            return {
                f"{topic}:{partition}": f"{committed[topic, partition]} of {end}"
                for (topic, partition), end in ends.items()
                if max(0, committed[topic, partition]) < end
            }

        until(behind, "everything is committed")
        asker.close()

    def database(self) -> dict[str, Any]:
        """What stands in ClickHouse, read by a process of its own: the engine is one process's."""
        done = subprocess.run([sys.executable, "-c", _DUMP, self.dsn], capture_output=True, check=True)
        return dict(json.loads(done.stdout))

    def end(self) -> None:
        """Leave no process behind, whatever happened."""
        if self._process is not None and self._process.poll() is None:
            self.kill()


@contextmanager
def service(
    broker: Broker, prefix: str, city: Path, folder: Path, dsn: str | None = None, *, own_topics: bool = True
) -> Iterator[Service]:
    made = Service(broker, prefix, city, folder, dsn, own_topics=own_topics)
    try:
        yield made
    finally:
        made.end()
