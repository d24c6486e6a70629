"""The brokers that tests run on: a real Apache Kafka 4 without Docker, and the embedded one.

A real Kafka is an address in ``$CITYBRAIN_TEST_KAFKA``, or else Apache's own Maven artifacts, resolved once by ``mvn``
into ``$CITYBRAIN_CACHE`` (default ``build/``) and run by ``java`` on loopback.  (A running Docker engine could be a
third way; it is not built, since Java and Maven are two Debian packages and an engine needs far more.)

Both kinds offer the same things: ``kind`` ("kafka" or "embedded"), ``bootstrap``, ``version``, ``create_topic``,
``running``, and ``stop`` and ``start`` that are real for clients: connections are cut and refused in between, and the
address and what was written are still there afterwards.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic
from kafka.admin import KafkaAdminClient

from agents.embedded_broker import EmbeddedBroker
from sinks.kafka_state import FIRST_METADATA_VERSION_OF_4

ROOT = Path(__file__).resolve().parent.parent

# Newest first.  The range asks Maven Central for the newest release of Kafka 4; its floor keeps Maven from reading the
# description of every older release.  The exact version is what these tests were last seen to pass on: a release whose
# artifacts are not all published yet must not stop everybody's tests.
KAFKA_VERSIONS = ("[4.4.0,5.0-alpha)", "4.4.0", "4.3.1")

# Only the console tools use kafka-tools-api, and it was not published with 4.4.0.  log4j-slf4j-impl is what ties
# Kafka's log calls to the log4j that its artifacts bring; without it a broker that fails says nothing.
POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>city-brain-streams</groupId><artifactId>test-kafka</artifactId><version>1</version>
  <dependencies><dependency>
    <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{version}</version>
    <exclusions><exclusion>
      <groupId>org.apache.kafka</groupId><artifactId>kafka-tools-api</artifactId>
    </exclusion></exclusions>
  </dependency><dependency>
    <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>[2.25,2.26-alpha)</version>
  </dependency></dependencies>
</project>
"""

LOG4J = """\
Configuration:
  status: error
  Appenders:
    Console:
      name: console
      PatternLayout: {pattern: "%d{ISO8601} %p %c{1.} %m%n"}
  Loggers:
    Root: {level: warn, AppenderRef: {ref: console}}
"""

# C1 alone and the serial collector start fastest and leave the other core to the test.
JAVA = ["java", "-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]

START_TIMEOUT_S = 180.0


class BrokerUnavailableError(Exception):
    """No such broker can be had here; the message is one line that names the reason and the remedy."""


class Broker(Protocol):
    """What a broker-agnostic test may use."""

    kind: str
    bootstrap: str
    version: str
    running: bool

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None: ...
    def stop(self) -> None: ...
    def start(self) -> Self: ...


# ---------------------------------------------------------------------------------------------------- its jars


@dataclass(frozen=True)
class Jars:
    folder: Path
    version: str

    @property
    def classpath(self) -> str:
        return f"{self.folder}/*"


def cache_folder() -> Path:
    return Path(os.environ.get("CITYBRAIN_CACHE", ROOT / "build")) / "kafka"


def kafka_jars(cache: Path) -> Jars:
    """Kafka's jars in ``cache``, resolved by Maven unless a complete set is there already.

    A lock lets parallel runs wait for each other; the stamp lists every file and its size, so that a resolve that was
    cut short, or files that went missing since, are resolved again.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _stamped(cache) or _resolve(cache)


def _stamped(cache: Path) -> Jars | None:
    try:
        stamp = json.loads((cache / "resolved.json").read_text())
        folder = cache / stamp["version"]
        complete = all((folder / name).stat().st_size == size for name, size in stamp["bytes_of_jar"].items())
    except (OSError, ValueError, KeyError):
        return None
    return Jars(folder, stamp["version"]) if complete else None


def _resolve(cache: Path) -> Jars:
    if shutil.which("mvn") is None:
        raise BrokerUnavailableError("mvn is not installed (Debian package maven)")
    incoming, problem = cache / "incoming", ""
    for version in KAFKA_VERSIONS:
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir()
        (incoming / "pom.xml").write_text(POM.format(version=version))
        # -U: ask again for what an earlier run did not find.
        command = ["mvn", "-B", "-q", "-U", "-f", str(incoming / "pom.xml"), "dependency:copy-dependencies"]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={incoming / 'jars'}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        except subprocess.TimeoutExpired:
            problem = "mvn took longer than 600 s"
            continue
        if done.returncode == 0:
            break
        problem = next((line for line in done.stdout.splitlines() if "ERROR" in line), "mvn failed")
    else:
        raise BrokerUnavailableError(f"Kafka's Maven artifacts could not be resolved: {problem}")
    (core,) = (incoming / "jars").glob("kafka_2.13-*.jar")
    found = core.name.removeprefix("kafka_2.13-").removesuffix(".jar")
    folder = cache / found
    shutil.rmtree(folder, ignore_errors=True)
    (incoming / "jars").rename(folder)
    shutil.rmtree(incoming)
    stamp = {"version": found, "bytes_of_jar": {jar.name: jar.stat().st_size for jar in sorted(folder.iterdir())}}
    written = cache / "resolved.json.new"
    written.write_text(json.dumps(stamp, indent=1))
    written.replace(cache / "resolved.json")
    return Jars(folder, found)


# -------------------------------------------------------------------------------------------------- real Kafka


class Kafka:
    """One or more real brokers in KRaft combined mode on loopback, from Maven's jars.

    ``folder`` (there, and empty) takes the brokers' data and logs (``broker-1/server.log``); the ports are chosen at
    construction and stay the same over stop and start.
    """

    kind = "kafka"

    def __init__(self, jars: Jars, folder: Path, brokers: int = 1) -> None:
        self._jars, self._folder = jars, folder
        self.version = jars.version
        ports = _free_ports(2 * brokers)
        self._ports = ports[:brokers]
        self._replication = min(3, brokers)
        self.bootstrap = ",".join(f"127.0.0.1:{port}" for port in self._ports)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._formatted = False
        voters = ",".join(f"{n}@127.0.0.1:{port}" for n, port in enumerate(ports[brokers:], 1))
        (folder / "log4j2.yaml").write_text(LOG4J)
        for number, (port, controller_port) in enumerate(zip(self._ports, ports[brokers:], strict=True), 1):
            self._home(number).mkdir()
            (self._home(number) / "server.log").touch()
            properties = self._properties(number, port, controller_port, voters)
            lines = (f"{name}={value}\n" for name, value in properties.items())
            (self._home(number) / "server.properties").write_text("".join(lines))

    def _properties(self, number: int, port: int, controller_port: int, voters: str) -> dict[str, object]:
        return {
            "process.roles": "broker,controller",
            "node.id": number,
            "controller.quorum.voters": voters,
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": self._home(number) / "data",
            # Small: a test's broker holds megabytes, and preallocates an index a segment.
            "log.segment.bytes": 32 << 20,
            "log.index.size.max.bytes": 1 << 20,
            "log.cleaner.dedupe.buffer.size": 8 << 20,
            "num.network.threads": 2,
            "num.io.threads": 2,
            "background.threads": 2,
            # As in production: a topic that nobody created is a mistake to be seen, not to be papered over.
            "auto.create.topics.enable": "false",
            "offsets.topic.num.partitions": 4,
            "offsets.topic.replication.factor": self._replication,
            "transaction.state.log.num.partitions": 4,
            "transaction.state.log.replication.factor": self._replication,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.num.partitions": 1,
            "share.coordinator.state.topic.replication.factor": self._replication,
            # Tests kill and restart consumers and must not wait for the production values.
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
            "delete.topic.enable": "true",
        }

    def _home(self, number: int) -> Path:
        return self._folder / f"broker-{number}"

    def _command(self, number: int, *main: str) -> list[str]:
        # A test run that is killed takes its brokers with it (setpriv replaces itself by java: the same process id).
        with_parent = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        settings = [f"-Dlog4j2.configurationFile={self._folder / 'log4j2.yaml'}", "-Djava.awt.headless=true"]
        return [
            *with_parent,
            *JAVA,
            *settings,
            "-cp",
            self._jars.classpath,
            *main,
            str(self._home(number) / "server.properties"),
        ]

    def _format(self, number: int) -> None:
        # Any 16 bytes in URL-safe base64; the same for every broker of the cluster.
        command = self._command(number, "kafka.tools.StorageTool", "format", "-t", "Y2l0eS1icmFpbi10ZXN0cw", "-c")
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise BrokerUnavailableError(f"Kafka's storage could not be formatted: {done.stdout}{done.stderr}")

    @property
    def running(self) -> bool:
        return len(self._processes) == len(self._ports)

    def start(self) -> Self:
        """Start the brokers that do not run, and wait until the cluster answers with all of them."""
        if not self._formatted:
            for number in range(1, len(self._ports) + 1):
                self._format(number)
            self._formatted = True
        for number in range(1, len(self._ports) + 1):
            if number not in self._processes:
                with (self._home(number) / "server.log").open("ab") as log:
                    self._processes[number] = subprocess.Popen(
                        self._command(number, "kafka.Kafka"), stdin=subprocess.DEVNULL, stdout=log, stderr=log
                    )
        self._wait_until_ready()
        return self

    def stop(self, number: int | None = None, *, kill: bool = False) -> None:
        """Stop all brokers or the one numbered (from 1): in order, or by SIGKILL.  What they hold stays on disk."""
        stopping = {n: p for n, p in self._processes.items() if number in (None, n)}
        for process in stopping.values():
            process.kill() if kill else process.terminate()
        for each, process in stopping.items():
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            del self._processes[each]

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        create_topic(self.bootstrap, name, partitions, self._replication, config)

    def log(self) -> str:
        """What the brokers have said; at level WARN, so little unless something is wrong."""
        logs = sorted(self._folder.glob("broker-*/server.log"))
        return "\n".join(f"--- {log}\n{log.read_text(errors='replace')[-20_000:]}" for log in logs)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        client = _quiet_admin(self.bootstrap)
        while True:
            for number, process in self._processes.items():
                if process.poll() is not None:
                    raise RuntimeError(f"Kafka broker {number} ended (exit code {process.returncode})\n{self.log()}")
            # The call itself waits for the connection; nothing here sleeps.
            with contextlib.suppress(KafkaException):
                found = client.list_topics(timeout=1)
                if len(found.brokers) == len(self._ports) and found.controller_id >= 0:
                    return
            if time.monotonic() > deadline:
                raise RuntimeError(f"Kafka was not ready within {START_TIMEOUT_S} s\n{self.log()}")


class KafkaElsewhere:
    """A real Kafka that somebody else runs, named by ``$CITYBRAIN_TEST_KAFKA``; it cannot be stopped from here."""

    kind = "kafka"
    running = True

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.version = "elsewhere"

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        create_topic(self.bootstrap, name, partitions, 1, config)

    def start(self) -> Self:
        return self

    def stop(self) -> None:
        raise BrokerUnavailableError(f"the Kafka at {self.bootstrap} is not ours to stop")


class Embedded:
    """The embedded broker behind the same interface."""

    kind = "embedded"

    def __init__(self) -> None:
        self._broker = EmbeddedBroker()
        self.bootstrap = self.version = ""
        self.running = False

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        """Make a topic; ``config`` is not heeded, since this broker has no topic configuration."""
        self._broker.create_topic(name, partitions)

    def start(self) -> Self:
        if self.bootstrap:
            self._broker.come_up()
        else:
            self._broker.start()
            self.bootstrap, self.version = self._broker.bootstrap, self._broker.version
        self.running = True
        return self

    def stop(self) -> None:
        self._broker.go_down()
        self.running = False

    def close(self) -> None:
        self._broker.close()


@contextlib.contextmanager
def real_kafka(brokers: int = 1) -> Iterator[Kafka | KafkaElsewhere]:
    """A real Kafka 4 or later, by the first way that there is; ``BrokerUnavailableError`` if there is none."""
    if (elsewhere := os.environ.get("CITYBRAIN_TEST_KAFKA")) and brokers == 1:
        there = KafkaElsewhere(elsewhere)
        level = metadata_version(elsewhere)
        there.version = f"with metadata.version {level} at {elsewhere}"
        yield there
        return
    java = java_version()
    if java is None or int(java.split(".")[0]) < 17:
        found = "is not installed" if java is None else f"is version {java}, and Kafka 4 needs 17"
        raise BrokerUnavailableError(f"java {found} (Debian package openjdk-17-jre-headless)")
    jars = kafka_jars(cache_folder())
    folder = Path(tempfile.mkdtemp(prefix="citybrain-kafka-"))
    kafka = Kafka(jars, folder, brokers)
    try:
        kafka.start()
        metadata_version(kafka.bootstrap)
        yield kafka
    finally:
        kafka.stop(kill=True)
        kept = cache_folder() / "logs"
        kept.mkdir(exist_ok=True)
        process = os.environ.get("PYTEST_XDIST_WORKER", "main")
        for number in range(1, brokers + 1):
            shutil.copy(folder / f"broker-{number}" / "server.log", kept / f"{process}-{brokers}-brokers-{number}.log")
        shutil.rmtree(folder, ignore_errors=True)


def metadata_version(bootstrap: str) -> int:
    """The cluster's `metadata.version` level; ``BrokerUnavailableError`` if it is not that of a Kafka 4 or later."""
    client = KafkaAdminClient(bootstrap_servers=bootstrap, bootstrap_timeout_ms=10_000)
    try:
        features = client.describe_features()
    finally:
        client.close()
    level = features.get("metadata.version", {}).get("finalized", (0, 0))[1]
    if level < FIRST_METADATA_VERSION_OF_4:
        raise BrokerUnavailableError(f"{bootstrap} is not an Apache Kafka 4 or later (metadata.version is {level})")
    return int(level)


def create_topic(
    bootstrap: str, name: str, partitions: int, replication: int, config: Mapping[str, str] | None
) -> None:
    new = NewTopic(name, partitions, replication_factor=replication, config=dict(config or {}))
    client = _quiet_admin(bootstrap)
    client.create_topics([new], operation_timeout=20)[name].result(timeout=30)
    # The controller answers before every broker knows the topic; a client that asks at once would not see it.
    deadline = time.monotonic() + 60
    while name not in client.list_topics(timeout=20).topics:
        assert time.monotonic() < deadline, f"topic {name} was created and is not to be seen"


def _quiet_admin(bootstrap: str) -> AdminClient:
    # Refused connections are expected while a broker starts.
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 100})


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago; all held at once, so that they differ."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def java_version() -> str | None:
    """Java's own version number; None if there is no Java."""
    if shutil.which("java") is None:
        return None
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, timeout=60, check=False).stderr
    match = re.search(r'"(\d[^"]*)"', said)
    return match.group(1) if match else None
