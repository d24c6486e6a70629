"""The topics of the service as data: partitions, retention, compaction and message limits; making and checking them.

One prefix for all.  Partitions of `reports` are shards; changing their number later sends a category group to another
shard, so it is chosen once.  Retention in Kafka counts by the record's own timestamp, not by when it arrived: records
of 2011 under a retention of a week are deleted within minutes.  So topics into which recordings are played need
``keep_old``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaError

from sinks.errors import SinkError
from streams.messages import (
    ASSIGNMENTS,
    DEAD_LETTERS,
    FEEDBACK,
    INCIDENTS,
    REPORTS,
    SUSPECTED_INCIDENTS,
    TOPIC_OF_SOURCE,
)

DEFAULT_PREFIX = "citybrain."
DEFAULT_PARTITIONS = 4
DEFAULT_SHARDS = 4

SOURCE_MAX_BYTES = 17 << 20
"""What a source topic takes: a 10 MB message must become a dead letter, not a gateway that is stuck on it for good."""

DEAD_LETTER_MAX_BYTES = 18 << 20
"""What `dead-letters` takes: any source message unchanged, and its headers."""

REPORTS_MAX_BYTES = 8 << 20
"""The largest block of located reports; a block is one record."""

_DAY_MS = 86_400_000
_FOREVER = -1
_SOURCE_RETENTION_MS = 7 * _DAY_MS
_ASSIGNMENTS_RETENTION_MS = 30 * _DAY_MS
_DEAD_LETTERS_RETENTION_MS = 7 * _DAY_MS
_REPORTS_RETENTION_BYTES = 64 << 30


class TopicError(SinkError):
    """Topics cannot be made or read; one line with the broker's reason and a remedy."""


class NoTopicAdministration(TopicError):  # noqa: N818  it is the kind of broker that is told, not a failure of it
    """The broker speaks Kafka but has no topic administration, as the embedded one."""


@dataclass(slots=True, frozen=True, kw_only=True)
class TopicSpec:
    """One topic as it should be; ``name`` is with prefix.

    ``retention_ms`` and ``retention_bytes`` (per partition) are -1 for no limit and None where they do not apply.
    ``of_platform`` marks the own topic of a platform, which only a city's pack knows.
    """

    name: str
    partitions: int
    cleanup_policy: str = "delete"
    retention_ms: int | None = None
    retention_bytes: int | None = None
    segment_ms: int | None = None
    max_message_bytes: int | None = None
    of_platform: bool = False

    def config(self) -> dict[str, str]:
        """The topic's configuration in Kafka's own names, only what is not the broker's business."""
        wanted = {
            "cleanup.policy": self.cleanup_policy,
            # A record's timestamp is its ingestion time (docs/contract.md): the producer's, kept over a replay.
            "message.timestamp.type": "CreateTime",
            "retention.ms": self.retention_ms,
            "retention.bytes": self.retention_bytes,
            "segment.ms": self.segment_ms,
            "max.message.bytes": self.max_message_bytes,
        }
        return {name: str(value) for name, value in wanted.items() if value is not None}


@dataclass(slots=True, frozen=True)
class Difference:
    """What is not as it should be with a topic, and what to do about it."""

    topic: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.topic}: {self.what}; {self.remedy}"


@dataclass(slots=True, frozen=True)
class FoundTopic:
    """One topic as the broker has it."""

    partitions: int
    replication: int
    config: Mapping[str, str]


def topic_table(
    prefix: str = DEFAULT_PREFIX,
    *,
    partitions: int = DEFAULT_PARTITIONS,
    shards: int = DEFAULT_SHARDS,
    keep_old: bool = False,
    platforms: Iterable[str] = (),
) -> tuple[TopicSpec, ...]:
    """Every topic of the service, those that come in first.

    Parameters
    ----------
    prefix : str
        Goes before every name.
    partitions : int
        Of every topic but `reports`, at least 1.
    shards : int
        Partitions of `reports`, at least 1.
    keep_old : bool
        No limit of time on any topic, so that a recording of an old day is not deleted for its timestamps.
    platforms : iterable of str
        Platforms' own topics, without prefix, as `streams.messages.platform_topic` names them; like their source's.
    """
    for name, value in (("partitions", partitions), ("shards", shards)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")

    def lasting(retention_ms: int) -> int:
        return _FOREVER if keep_old else retention_ms

    # Callers' numbers stand in the clear in what sources send and in dead letters: a segment is closed each day,
    # so that retention means a day more than it says and not twice as long.
    personal = _DAY_MS
    own = tuple(platforms)
    sources = [
        TopicSpec(
            name=prefix + topic,
            partitions=partitions,
            retention_ms=lasting(_SOURCE_RETENTION_MS),
            max_message_bytes=SOURCE_MAX_BYTES,
            segment_ms=personal,
            of_platform=topic in own,
        )
        for topic in (*TOPIC_OF_SOURCE.values(), FEEDBACK, *own)
    ]
    return (
        *sources,
        # The log that decides: a restarted worker folds it from its start, so it is bounded by size alone.
        TopicSpec(
            name=prefix + REPORTS,
            partitions=shards,
            retention_ms=_FOREVER,
            retention_bytes=_REPORTS_RETENTION_BYTES,
            max_message_bytes=REPORTS_MAX_BYTES,
        ),
        TopicSpec(name=prefix + INCIDENTS, partitions=partitions, cleanup_policy="compact"),
        TopicSpec(name=prefix + SUSPECTED_INCIDENTS, partitions=partitions, cleanup_policy="compact"),
        TopicSpec(name=prefix + ASSIGNMENTS, partitions=partitions, retention_ms=lasting(_ASSIGNMENTS_RETENTION_MS)),
        TopicSpec(
            name=prefix + DEAD_LETTERS,
            partitions=partitions,
            retention_ms=lasting(_DEAD_LETTERS_RETENTION_MS),
            max_message_bytes=DEAD_LETTER_MAX_BYTES,
            segment_ms=personal,
        ),
    )


def differences(
    specs: Iterable[TopicSpec], found: Mapping[str, FoundTopic], *, replication: int | None = None
) -> list[Difference]:
    """Everything in which the topics found are not as the specs say; empty if nothing.

    A pure comparison; ``replication`` is compared only where it is given.
    """
    faults = []
    for spec in specs:
        topic = found.get(spec.name)
        if topic is None:
            pack = " --city PACK" if spec.of_platform else ""
            faults.append(Difference(spec.name, "is missing", f"make it with `citybrain topics create{pack}`"))
            continue
        if topic.partitions != spec.partitions:
            what = f"has {topic.partitions} partitions instead of {spec.partitions}"
            remedy = "delete it and run `citybrain topics create`, or name its number with --partitions or --shards"
            faults.append(Difference(spec.name, what, remedy))
        if replication is not None and topic.replication != replication:
            what = f"has {topic.replication} replicas a partition instead of {replication}"
            faults.append(Difference(spec.name, what, "reassign it with kafka-reassign-partitions.sh"))
        for name, wanted in spec.config().items():
            value = topic.config.get(name)
            if value != wanted:
                what = f"{name} is {value or 'not told'} instead of {wanted}"
                remedy = f"set it with kafka-configs.sh --alter --topic {spec.name} --add-config {name}={wanted}"
                faults.append(Difference(spec.name, what, remedy))
    return faults


class TopicAdministration:
    """Makes and reads topics through kafka-python's admin client; a context manager.

    ``TopicError`` if the broker at ``bootstrap`` does not answer within ``timeout_s``, or refuses;
    ``NoTopicAdministration`` if it is the embedded one.
    """

    def __init__(self, bootstrap: str, timeout_s: float = 8.0) -> None:
        self.bootstrap = bootstrap
        if is_embedded(bootstrap, timeout_s):
            raise NoTopicAdministration(
                f"the broker at {bootstrap} is the embedded one and has no topic administration: it makes a topic when "
                "it is first asked for; name a real Kafka with --brokers"
            )
        try:
            self._client = KafkaAdminClient(
                bootstrap_servers=bootstrap.split(","),
                client_id="citybrain-topics",
                bootstrap_timeout_ms=int(timeout_s * 1000),
            )
        except KafkaError as error:
            raise TopicError(f"no Kafka answers at {bootstrap}; start it, or name another with --brokers") from error

    def found(self, names: Iterable[str]) -> dict[str, FoundTopic]:
        """Those of the named topics that exist."""
        names = list(names)
        untold: list[str] = []
        try:
            # A topic may be deleted between the two questions, or one broker know it and the other not yet: ask again.
            for _ in range(3):
                # All of them: asked for a name that is not there, a broker may make it.
                known = {topic["name"]: topic["partitions"] for topic in self._client.describe_topics()}
                present = [name for name in names if name in known]
                configs = self._configs(present)
                # kafka-python gives a refusal as an empty answer; a topic's own is never empty.
                untold = [name for name in present if not configs[name]]
                if not untold:
                    break
        except KafkaError as error:
            raise TopicError(f"{self.bootstrap} does not tell its topics: {error}") from error
        if untold:
            raise TopicError(
                f"{self.bootstrap} does not tell the configuration of {', '.join(untold)}; "
                "this needs the permission DescribeConfigs"
            )
        return {
            name: FoundTopic(
                partitions=len(known[name]),
                replication=min((len(partition["replica_nodes"]) for partition in known[name]), default=0),
                config=configs[name],
            )
            for name in present
        }

    def create(self, specs: Iterable[TopicSpec], replication: int | None = None) -> list[str]:
        """Make those that are missing; the names made.  Existing ones are left as they are.

        ``replication`` None leaves it to the broker's default.  With three replicas or more a write is acknowledged
        by two, so that one broker may die at any time.
        """
        wanted = {spec.name: spec for spec in specs}
        missing = [name for name in wanted if name not in self.found(wanted)]
        if not missing:
            return []
        durable = {"min.insync.replicas": "2"} if replication is not None and replication >= 3 else {}
        request = {
            name: {
                "num_partitions": wanted[name].partitions,
                "replication_factor": -1 if replication is None else replication,
                "configs": {**wanted[name].config(), **durable},
            }
            for name in missing
        }
        try:
            self._client.create_topics(request, timeout_ms=20_000, wait_for_metadata=True)
        except KafkaError as error:
            raise TopicError(f"{self.bootstrap} does not make the topics {', '.join(missing)}: {error}") from error
        return missing

    def _configs(self, names: list[str]) -> dict[str, dict[str, str]]:
        if not names:
            return {}
        asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        answer = self._client.describe_configs(asked, config_filter="all")["topic"]
        return {name: {key: data["value"] for key, data in answer[name].items()} for name in names}

    def __enter__(self) -> TopicAdministration:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()


def is_embedded(bootstrap: str, timeout_s: float = 8.0) -> bool:
    """Whether the broker there is the embedded one, by its cluster id; ``TopicError`` if nothing answers in time."""
    client = AdminClient({"bootstrap.servers": bootstrap, "client.id": "citybrain-topics", "log_level": 0})
    try:
        cluster_id = client.list_topics(timeout=timeout_s).cluster_id
    except KafkaException as error:
        raise TopicError(f"no Kafka answers at {bootstrap}; start it, or name another with --brokers") from error
    return (cluster_id or "").startswith("mockCluster")
