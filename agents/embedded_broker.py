"""The embedded broker: librdkafka's mock cluster in a process of its own, for the demo and for quick tests.

It speaks the real Kafka protocol on a loopback port, so Faust, aiokafka, confluent-kafka and kafka-python
(``api_version=(2, 1)``) join it unchanged: produce, fetch, consumer groups, commits, timestamps, headers.

What it is not — and why it is for the demo and quick tests only:

- It holds at most 5 MB and 100,000 record batches a partition, in memory, and **drops the oldest beyond that without
  a word**; both figures are fixed in librdkafka.  Pace the producer by the consumer's lag
  (``produce_recording(pause=…)``).  A single record over 5 MB is accepted, empties its partition and is gone.
- A group that lost a member answers no join until the session timeout less one second has passed (librdkafka's rule;
  44 s with librdkafka's own default).  Give consumers a session timeout of 2 to 6 s.
- Its answer to a producer says that the record was stamped 1234 ms after the epoch; what it keeps and hands to
  consumers is the producer's timestamp.
- Everything is gone when the process ends.
- There is no CreateTopics, no topic configuration, no compaction, no replication and no access control.  A topic that
  a client asks for appears with 4 partitions; :meth:`EmbeddedBroker.create_topic` makes one with another number.

The process answers JSON lines on its standard input with JSON lines on its standard output, and ends when its input
closes or on SIGTERM, so it cannot outlive the process that started it.
"""

from __future__ import annotations

import ctypes
import json
import selectors
import signal
import subprocess
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import confluent_kafka

DEFAULT_PARTITIONS = 4
"""Partitions of a topic that appears because a client asked for it; fixed in librdkafka."""

PARTITION_MAX_BYTES = 5 * 1024 * 1024
"""A partition's bound; the oldest batches beyond it are dropped silently; fixed in librdkafka."""

ANSWER_TIMEOUT_S = 60.0
"""A broker process that has not answered for so long is taken for dead.  A start takes about 0.2 s."""

_PRODUCER = 0  # rd_kafka_type_t
_INITIAL_REBALANCE_DELAY_MS = 100  # librdkafka's own default makes every new group wait 3 s


class EmbeddedBrokerError(RuntimeError):
    """The embedded broker could not be started, or did not do what it was asked."""


class EmbeddedBroker:
    """A context manager that runs the embedded broker in a process of its own.

    >>> with EmbeddedBroker({"city.reports": 8}) as broker:  # doctest: +SKIP
    ...     print(broker.bootstrap)
    127.0.0.1:40123

    Parameters
    ----------
    topics : mapping of topic name (with prefix) to number of partitions
        Topics made before anyone can connect.  Others appear with 4 partitions when first asked for.
    brokers : int
        Brokers in the cluster, at least 1.  All are listed in ``bootstrap``.
    """

    def __init__(self, topics: Mapping[str, int] | None = None, *, brokers: int = 1) -> None:
        if brokers < 1:
            raise ValueError(f"brokers is {brokers}; it must be at least 1")
        self._topics = dict(topics or {})
        self._brokers = brokers
        self._process: subprocess.Popen[bytes] | None = None
        self.bootstrap = ""
        self.version = ""

    def start(self) -> Self:
        """Start the process and wait until it has told its address; ``EmbeddedBrokerError`` if it does not."""
        if self._process is not None:
            raise EmbeddedBrokerError("the embedded broker is running already")
        command = [sys.executable, "-m", "agents.embedded_broker", "--brokers", str(self._brokers)]
        for name, partitions in self._topics.items():
            command += ["--topic", f"{name}={partitions}"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            address = self._answer()
        except EmbeddedBrokerError:
            self.close()
            raise
        self.bootstrap, self.version = address["bootstrap"], address["version"]
        return self

    def create_topic(self, name: str, partitions: int) -> None:
        """Make a topic; ``EmbeddedBrokerError`` if it exists already or the number is not positive."""
        self._ask({"do": "create", "topic": name, "partitions": partitions})

    def go_down(self) -> None:
        """Cut every connection and refuse new ones, as a stopped broker does; what it holds stays."""
        self._ask({"do": "down"})

    def come_up(self) -> None:
        """Accept connections again, at the same address and with the same content."""
        self._ask({"do": "up"})

    def close(self) -> None:
        """End the process; what it held is gone.  Closing twice is fine."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: dict[str, Any]) -> None:
        if self._process is None:
            raise EmbeddedBrokerError("the embedded broker is not running")
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise EmbeddedBrokerError("the embedded broker's process has ended") from error
        answer = self._answer()
        if "error" in answer:
            raise EmbeddedBrokerError(answer["error"])

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(ANSWER_TIMEOUT_S):
                raise EmbeddedBrokerError(f"the embedded broker's process did not answer within {ANSWER_TIMEOUT_S} s")
        line = self._process.stdout.readline()
        if not line:
            raise EmbeddedBrokerError(f"the embedded broker's process ended (exit code {self._process.wait()})")
        answer: dict[str, Any] = json.loads(line)
        return answer


# ------------------------------------------------------------------------------------------- inside the process


class _MockCluster:
    """librdkafka's mock cluster through its C interface (``rdkafka_mock.h``).

    The Python binding can only switch a mock cluster on (``test.mock.num.brokers``); the number of partitions, the
    group delay and taking a broker down are in the C interface alone, which the same shared library exports.
    """

    def __init__(self, brokers: int) -> None:
        # The symbols of a library's dependencies are found through it, wherever the wheel has put librdkafka.
        library = ctypes.CDLL(confluent_kafka.cimpl.__file__)
        library.rd_kafka_conf_new.restype = ctypes.c_void_p
        library.rd_kafka_conf_set.argtypes = [ctypes.c_void_p, *[ctypes.c_char_p] * 3, ctypes.c_size_t]
        library.rd_kafka_new.restype = ctypes.c_void_p
        library.rd_kafka_new.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
        library.rd_kafka_mock_cluster_new.restype = ctypes.c_void_p
        library.rd_kafka_mock_cluster_new.argtypes = [ctypes.c_void_p, ctypes.c_int]
        library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
        library.rd_kafka_mock_cluster_bootstraps.argtypes = [ctypes.c_void_p]
        library.rd_kafka_mock_group_initial_rebalance_delay_ms.restype = None
        library.rd_kafka_mock_group_initial_rebalance_delay_ms.argtypes = [ctypes.c_void_p, ctypes.c_int32]
        library.rd_kafka_mock_topic_create.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
        library.rd_kafka_mock_broker_set_down.argtypes = [ctypes.c_void_p, ctypes.c_int32]
        library.rd_kafka_mock_broker_set_up.argtypes = [ctypes.c_void_p, ctypes.c_int32]
        library.rd_kafka_err2str.restype = ctypes.c_char_p
        self._library, self._brokers = library, brokers

        problem = ctypes.create_string_buffer(512)
        settings = library.rd_kafka_conf_new()
        # The instance that carries the cluster connects to nothing, and would say so at the level of a warning.
        library.rd_kafka_conf_set(settings, b"log_level", b"3", problem, len(problem))
        handle = library.rd_kafka_new(_PRODUCER, settings, problem, len(problem))
        if not handle:
            raise EmbeddedBrokerError(f"librdkafka: {problem.value.decode(errors='replace')}")
        self._cluster = library.rd_kafka_mock_cluster_new(handle, brokers)
        if not self._cluster:
            raise EmbeddedBrokerError("librdkafka could not open a loopback port for its mock cluster")
        library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, _INITIAL_REBALANCE_DELAY_MS)
        self.bootstrap = library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def create_topic(self, name: str, partitions: int) -> None:
        if partitions < 1:
            raise EmbeddedBrokerError(f"topic {name!r}: {partitions} partitions; at least 1 is needed")
        code = self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1)
        self._raise_for(code, f"topic {name!r}")

    def go_down(self) -> None:
        for number in range(1, self._brokers + 1):
            self._raise_for(self._library.rd_kafka_mock_broker_set_down(self._cluster, number), f"broker {number}")

    def come_up(self) -> None:
        for number in range(1, self._brokers + 1):
            self._raise_for(self._library.rd_kafka_mock_broker_set_up(self._cluster, number), f"broker {number}")

    def _raise_for(self, code: int, what: str) -> None:
        if code:
            raise EmbeddedBrokerError(f"{what}: {self._library.rd_kafka_err2str(code).decode()}")


def _do(cluster: _MockCluster, request: dict[str, Any]) -> None:
    match request:
        case {"do": "create", "topic": str(name), "partitions": int(partitions)}:
            cluster.create_topic(name, partitions)
        case {"do": "down"}:
            cluster.go_down()
        case {"do": "up"}:
            cluster.come_up()
        case _:
            raise EmbeddedBrokerError(f"unknown request {request}")


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _serve(arguments: list[str]) -> None:
    """Run the cluster: one line with the address, then one answer a request until the input closes."""
    # The default action: the kernel ends the process at once; there is nothing to save.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Ctrl-C goes to the whole foreground group; the starter decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    brokers, topics = 1, {}
    for option, value in zip(arguments[::2], arguments[1::2], strict=True):
        if option == "--brokers":
            brokers = int(value)
        elif option == "--topic":
            name, _, partitions = value.rpartition("=")
            topics[name] = int(partitions)
        else:
            raise SystemExit(f"unknown option {option}; known: --brokers N, --topic NAME=PARTITIONS")
    cluster = _MockCluster(brokers)
    for name, count in topics.items():
        cluster.create_topic(name, count)
    _say({"bootstrap": cluster.bootstrap, "version": confluent_kafka.libversion()[0]})
    for line in sys.stdin:
        try:
            _do(cluster, json.loads(line))
        except EmbeddedBrokerError as error:
            _say({"error": str(error)})
        else:
            _say({"done": True})


if __name__ == "__main__":
    _serve(sys.argv[1:])
