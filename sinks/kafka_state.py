"""What a Kafka says of itself and of a consumer group, asked without leaving anything there: for `citybrain doctor`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # it is exported
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError as PythonKafkaError

from sinks.errors import SinkUnavailable

FIRST_METADATA_VERSION_OF_4 = 25
"""The `metadata.version` feature level that Kafka 4.0 brought; every later 4.x has a higher one."""

_EMBEDDED = "mockCluster"
_PAUSE_S = 0.1
_PASSING = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_COORDINATOR,
}


K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ClusterState:
    """A cluster that answers.

    Attributes
    ----------
    cluster_id : str
    brokers : mapping of broker id to the ``host:port`` that it tells clients to use
    controller_id : int
        -1 if there is none.
    metadata_version : int or None
        Level of the feature `metadata.version`, which rises with Kafka's version; None if it is not told.
    is_embedded : bool
        Whether it is librdkafka's mock cluster.
    partitions : mapping of topic to number of partitions
    without_leader, under_replicated : tuple of str
        ``topic[partition]`` that nobody serves, and that have fewer replicas in sync than they should.
    """

    cluster_id: str
    brokers: Mapping[int, str]
    controller_id: int
    metadata_version: int | None
    is_embedded: bool
    partitions: Mapping[str, int]
    without_leader: tuple[str, ...]
    under_replicated: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GroupState:
    """A consumer group and how far it is.

    Attributes
    ----------
    state : str or None
        ``stable``, ``empty``, …; None if the broker cannot tell.
    members : int or None
    lag : mapping of topic to records not yet acknowledged, over all its partitions
    lost : mapping of ``topic[partition]`` to records that were deleted before the group had read them
    """

    state: str | None
    members: int | None
    lag: Mapping[str, int]
    lost: Mapping[str, int]


def read_cluster_state(bootstrap: str, timeout_s: float) -> ClusterState:
    """Ask a cluster what it consists of; :class:`SinkUnavailable` if nothing answers as Kafka does in time."""
    try:
        found = _admin(bootstrap).list_topics(timeout=timeout_s)
    except KafkaException as error:
        raise SinkUnavailable(f"no Kafka answers at {bootstrap}: {_said(error)}") from error
    without_leader, under_replicated = [], []
    for topic in found.topics.values():
        for partition in topic.partitions.values():
            name = f"{topic.topic}[{partition.id}]"
            if partition.leader < 0:
                without_leader.append(name)
            elif len(partition.isrs) < len(partition.replicas):
                under_replicated.append(name)
    is_embedded = (found.cluster_id or "").startswith(_EMBEDDED)
    return ClusterState(
        cluster_id=found.cluster_id or "",
        brokers={int(broker.id): f"{_bracketed(str(broker.host))}:{broker.port}" for broker in found.brokers.values()},
        controller_id=found.controller_id,
        metadata_version=None if is_embedded else _metadata_version(bootstrap, timeout_s),
        is_embedded=is_embedded,
        partitions={str(topic.topic): len(topic.partitions) for topic in found.topics.values()},
        without_leader=tuple(sorted(without_leader)),
        under_replicated=tuple(sorted(under_replicated)),
    )


def _metadata_version(bootstrap: str, timeout_s: float) -> int | None:
    try:
        client = KafkaAdminClient(bootstrap_servers=bootstrap.split(","), bootstrap_timeout_ms=int(timeout_s * 1000))
        try:
            level = client.describe_features().get("metadata.version", {}).get("finalized", (0, 0))[1]
        finally:
            client.close()
    except PythonKafkaError:
        # Not told: a broker that is too old for the question, or does not grant it.  The caller says so.
        return None
    return int(level) or None


def read_group_state(bootstrap: str, group: str, partitions: Mapping[str, int], timeout_s: float) -> GroupState:
    """Ask how far a group is in topics (name to number of partitions); :class:`SinkUnavailable` if it is not told."""
    places = [TopicPartition(topic, number) for topic, count in partitions.items() for number in range(count)]
    until_s = time.monotonic() + timeout_s
    # A consumer that never subscribes joins nothing.  (The admin client's question for a group's offsets ended the
    # whole process on a Kafka that had never had a group.)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "log_level": 0})
    try:
        committed = _settled(partial(consumer.committed, places), until_s) if places else []
        bounds = [_settled(partial(consumer.get_watermark_offsets, place), until_s) for place in places]
    except KafkaException as error:
        raise SinkUnavailable(f"the offsets of group {group} are not told: {_said(error)}") from error
    finally:
        consumer.close()
    lag: Counter[str] = Counter()
    lost: dict[str, int] = {}
    for place, (oldest, newest) in zip(committed, bounds, strict=True):
        topic, number = str(place.topic), place.partition
        # Below zero: nothing was ever committed, so all that is there waits and nothing was lost.
        reached = place.offset if place.offset >= 0 else oldest
        if reached < oldest:
            lost[f"{topic}[{number}]"] = oldest - reached
        lag[topic] += max(0, newest - max(reached, oldest))
    state, members = _members(bootstrap, group, timeout_s)
    return GroupState(state, members, dict(lag), lost)


def _members(bootstrap: str, group: str, timeout_s: float) -> tuple[str | None, int | None]:
    admin = _admin(bootstrap)
    try:
        found = _answer(admin.describe_consumer_groups([group], request_timeout=timeout_s), timeout_s)[group]
    except (KafkaException, TimeoutError):
        # The embedded broker has no such question, and a group that never was is refused by some brokers.
        return None, None
    return found.state.name.lower(), len(found.members)


def newest_times_ms(bootstrap: str, partitions: Mapping[str, int], timeout_s: float) -> dict[str, int]:
    """Greatest timestamp of a record in each topic that has one, Unix ms; :class:`SinkUnavailable` if it is not told.

    Timestamps are those of the producers' clocks.  The embedded broker does not tell them: the answer is empty.
    """
    places = [TopicPartition(topic, number) for topic, count in partitions.items() for number in range(count)]
    if not places:
        return {}
    admin = _admin(bootstrap)
    try:
        newest_of_all: Any = OffsetSpec.max_timestamp()  # type: ignore[no-untyped-call]
        asked = dict.fromkeys(places, newest_of_all)
        told = _settled(
            lambda timeout: _answer(admin.list_offsets(asked, request_timeout=timeout), timeout),
            time.monotonic() + timeout_s,
        )
    except (KafkaException, TimeoutError) as error:
        raise SinkUnavailable(f"the timestamps at {bootstrap} are not told: {_said(error)}") from error
    newest: dict[str, int] = {}
    for place, one in told.items():
        if one.timestamp > 0:
            newest[str(place.topic)] = max(newest.get(str(place.topic), 0), one.timestamp)
    return newest


def _settled(ask: Callable[..., T], until_s: float) -> T:
    """The answer, asked for again while leaders and coordinators move, as they do after a topic or group is made."""
    while True:
        left_s = until_s - time.monotonic()
        try:
            return ask(timeout=max(_PAUSE_S, left_s))
        except KafkaException as error:
            if error.args[0].code() not in _PASSING or left_s <= _PAUSE_S:
                raise
        time.sleep(_PAUSE_S)


def _answer(futures: Mapping[K, Future[Any]], timeout_s: float) -> dict[K, Any]:
    """The results of one question."""
    # All of them, also when one has failed already: the client should not go while an answer is under way.
    wait(futures.values(), 2 * timeout_s)
    return {what: future.result(0) for what, future in futures.items()}


def _admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap, "client.id": "citybrain-doctor", "log_level": 0})


def _said(error: BaseException) -> str:
    if isinstance(error, KafkaException):
        return str(error.args[0].str())
    return "no answer in time"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
