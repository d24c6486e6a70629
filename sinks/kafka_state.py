"""What a Kafka says of itself and of a consumer group, asked without leaving anything there: for `citybrain doctor`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # it is exported
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from sinks.errors import SinkUnavailable

FIRST_METADATA_VERSION_OF_4 = 25
"""The `metadata.version` feature level that Kafka 4.0 brought; every later 4.x has a higher one."""

_EMBEDDED = "mockCluster"

_EARLIEST, _LATEST, _NEWEST = (getattr(OffsetSpec, name)() for name in ("earliest", "latest", "max_timestamp"))


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
    except KafkaError:
        # Not told: a broker that is too old for the question, or does not grant it.  The caller says so.
        return None
    return int(level) or None


def read_group_state(bootstrap: str, group: str, partitions: Mapping[str, int], timeout_s: float) -> GroupState:
    """Ask how far a group is in topics (name to number of partitions); :class:`SinkUnavailable` if it is not told."""
    admin = _admin(bootstrap)
    places = [TopicPartition(topic, number) for topic, count in partitions.items() for number in range(count)]
    if not places:
        return GroupState(None, None, {}, {})
    try:
        asked = [ConsumerGroupTopicPartitions(group, places)]
        committed = admin.list_consumer_group_offsets(asked, request_timeout=timeout_s)[group].result(timeout_s)
        oldest = _offsets(admin, places, _EARLIEST, timeout_s)
        newest = _offsets(admin, places, _LATEST, timeout_s)
    except (KafkaException, TimeoutError) as error:
        raise SinkUnavailable(f"the offsets of group {group} are not told: {_said(error)}") from error
    lag: Counter[str] = Counter()
    lost: dict[str, int] = {}
    for place in committed.topic_partitions or []:
        topic, number = str(place.topic), place.partition
        # Below zero: nothing was ever committed, so all that is there waits and nothing was lost.
        reached = place.offset if place.offset >= 0 else oldest[topic, number]
        if reached < oldest[topic, number]:
            lost[f"{topic}[{number}]"] = oldest[topic, number] - reached
        lag[topic] += max(0, newest[topic, number] - max(reached, oldest[topic, number]))
    state, members = _members(admin, group, timeout_s)
    return GroupState(state, members, dict(lag), lost)


def _members(admin: Any, group: str, timeout_s: float) -> tuple[str | None, int | None]:
    try:
        found = admin.describe_consumer_groups([group], request_timeout=timeout_s)[group].result(timeout_s)
    except (KafkaException, TimeoutError):
        # The embedded broker has no such question, and a group that never was is refused by some brokers.
        return None, None
    return found.state.name.lower(), len(found.members)


def newest_times_ms(bootstrap: str, partitions: Mapping[str, int], timeout_s: float) -> dict[str, int]:
    """Greatest timestamp of a record in each topic that has one, Unix ms; :class:`SinkUnavailable` if it is not told.

    Timestamps are those of the producers' clocks.  The embedded broker does not tell them: the answer is empty.
    """
    places = [TopicPartition(topic, number) for topic, count in partitions.items() for number in range(count)]
    newest: dict[str, int] = {}
    try:
        for place, future in _asked(_admin(bootstrap), places, _NEWEST, timeout_s).items():
            told_ms = future.result(timeout_s).timestamp
            if told_ms > 0:
                newest[place.topic] = max(newest.get(place.topic, 0), told_ms)
    except (KafkaException, TimeoutError) as error:
        raise SinkUnavailable(f"the timestamps at {bootstrap} are not told: {_said(error)}") from error
    return newest


def _asked(admin: Any, places: list[TopicPartition], spec: OffsetSpec, timeout_s: float) -> dict[TopicPartition, Any]:
    return dict(admin.list_offsets(dict.fromkeys(places, spec), request_timeout=timeout_s)) if places else {}


def _offsets(
    admin: Any, places: list[TopicPartition], spec: OffsetSpec, timeout_s: float
) -> dict[tuple[str, int], int]:
    asked = _asked(admin, places, spec, timeout_s)
    return {(place.topic, place.partition): future.result(timeout_s).offset for place, future in asked.items()}


def _admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap, "client.id": "citybrain-doctor", "log_level": 0})


def _said(error: BaseException) -> str:
    if isinstance(error, KafkaException):
        return str(error.args[0].str())
    return "no answer in time"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
