"""The demo: an embedded broker, a real worker with the embedded ClickHouse, and a simulated city day played through.

The demo itself plays the two ends: the platforms that send, and a dispatch centre that consumes what is decided.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from confluent_kafka import Consumer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from agents.embedded_broker import EmbeddedBroker
from sinks.playback import LagLimit, Played, produce_recording
from sinks.topics import topic_table
from streams.messages import ASSIGNMENTS, DEAD_LETTERS, INCIDENTS, SUSPECTED_INCIDENTS
from streams.recording import RecordedMessage

PREFIX = "citybrain."
GROUP = "citybrain-demo"
_START_S = 90
_FINISH_S = 180
_POLL_S = 0.2
_MAX_LAG_BYTES = 2 << 20
"""Under half of what the embedded broker keeps of a partition."""


class DemoError(RuntimeError):
    """The demo cannot go on; one line that says why and where to look."""


class DispatchCentre:
    """Consumes decisions as they come, so that nothing is lost to the embedded broker's small memory.

    ``topics``: name with prefix to number of partitions.  ``suspected`` are those that ever were; unlike a real centre
    it reads of them too, to count.
    """

    def __init__(self, bootstrap: str, topics: Mapping[str, int]) -> None:
        self.assignments: dict[bytes, bytes] = {}
        self.incidents: dict[bytes, bytes] = {}
        self.suspected: dict[bytes, bytes] = {}
        self.dead_letters: Counter[str] = Counter()
        self._stop = threading.Event()
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "dispatch-centre", "enable.auto.commit": False}
        )
        names = [PREFIX + topic for topic in (INCIDENTS, SUSPECTED_INCIDENTS, ASSIGNMENTS, DEAD_LETTERS)]
        self._consumer.assign([TopicPartition(name, p, 0) for name in names for p in range(topics[name])])
        self._thread = threading.Thread(target=self._consume, args=(self._consumer,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _consume(self, consumer: Consumer) -> None:
        while not self._stop.is_set():
            for message in consumer.consume(1000, timeout=_POLL_S):
                if message.error() is not None:
                    continue
                value = message.value() or b""
                topic = (message.topic() or "").removeprefix(PREFIX)
                if topic == ASSIGNMENTS:
                    # Keyed by origin, which stands first: what is delivered twice counts once.
                    self.assignments[value.split(b'",', 1)[0]] = value
                elif topic == INCIDENTS:
                    self.incidents[message.key() or b""] = value
                elif topic == SUSPECTED_INCIDENTS:
                    self.suspected[message.key() or b""] = value
                else:
                    headers: Any = message.headers() or []
                    self.dead_letters.update(data.decode() for name, data in headers if name == "reason")
        consumer.close()


class DemoWorker:
    """`citybrain worker` in a process of its own, with the embedded ClickHouse in ``folder``."""

    def __init__(self, city: Path, bootstrap: str, folder: Path, port: int) -> None:
        self.url = f"http://localhost:{port}"
        self.log = folder / "worker.log"
        self.dsn = f"chdb://{(folder / 'clickhouse').resolve()}"
        command = [
            sys.executable, "-m", "agents", "worker", "--test-key", "--city", str(city), "--brokers", bootstrap,
            "--prefix", PREFIX, "--group", GROUP, "--clickhouse", self.dsn, "--port", str(port),
        ]  # fmt: skip
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CITYBRAIN_")}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def figures(self) -> dict[str, float]:
        """The worker's counters and gauges by name, summed over their labels."""
        with urllib.request.urlopen(self.url + "/metrics", timeout=10) as answer:
            text = answer.read().decode()
        figures: defaultdict[str, float] = defaultdict(float)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                figures[sample.name] += sample.value
        return figures

    def wait_until_ready(self) -> None:
        """Return when partitions are assigned and ClickHouse answers."""
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            self.require_alive()
            try:
                with urllib.request.urlopen(self.url + "/readyz", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(_POLL_S)
        raise DemoError(f"the worker was not ready within {_START_S} s; its log is {self.log}")

    def wait_until_done(self, elements: int, show: Callable[[int], None]) -> None:
        """Return when every element was read and everything that came of it is in ClickHouse."""
        deadline = time.monotonic() + _FINISH_S
        while time.monotonic() < deadline:
            self.require_alive()
            figures = self.figures()
            read = int(figures["citybrain_messages_total"])
            show(read)
            if read >= elements and self._settled(figures):
                return
            time.sleep(_POLL_S)
        raise DemoError(f"the worker was not done within {_FINISH_S} s; its log is {self.log}")

    @staticmethod
    def _settled(figures: Mapping[str, float]) -> bool:
        # Every element read came out as one of these (docs/contract.md), or is still on its way.
        answered = sum(
            figures[f"citybrain_{name}_total"]
            for name in ("outcomes", "dead_letters", "quiet_readings", "redelivered_reports")
        )
        written = figures["citybrain_rows_written_total"]
        least = figures["citybrain_outcomes_total"] + figures["citybrain_dead_letters_total"]
        # Incidents are rows too, of which there may be any number; that none is on its way the lag says.
        return (
            answered >= figures["citybrain_messages_total"]
            and written >= least
            and not figures["citybrain_lag_records"]
        )

    def require_alive(self) -> None:
        """Raise :class:`DemoError` if the worker has ended."""
        code = self._process.poll()
        if code is not None:
            last = self.log.read_text(errors="replace").strip().splitlines()[-1:]
            raise DemoError(f"the worker ended with code {code}: {' '.join(last)} (log: {self.log})")

    def stop(self) -> None:
        """End the worker; what it buffered is written."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def free_port(wanted: int) -> int:
    """The wanted port if nobody listens there, else any free one."""
    for port in (wanted, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DemoError("no free port to listen on")


def demo_topics(platforms: Iterable[str]) -> dict[str, int]:
    """The topics of the embedded broker, among them platforms' own, given without prefix, and their partitions."""
    return {spec.name: spec.partitions for spec in topic_table(PREFIX, platforms=platforms)}


def play(broker: EmbeddedBroker, messages: list[RecordedMessage], sent: Callable[[int], None]) -> Played:
    """Send the day as fast as the worker keeps up."""
    limit = LagLimit(broker.bootstrap, GROUP, max_bytes=_MAX_LAG_BYTES)
    return produce_recording(messages, broker.bootstrap, PREFIX, pause=limit, delivered=limit.delivered, sent=sent)
