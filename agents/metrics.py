"""What operators see: Prometheus metrics of one worker, built on an injected registry and pre-zeroed."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from streams.datum_guard import DATUMS, Finding
from streams.dead_letters import SERVICE_VERSION
from streams.messages import (
    ASSIGNMENTS,
    DEAD_LETTERS,
    FEEDBACK,
    INCIDENTS,
    SOURCES,
    SUSPECTED_INCIDENTS,
    Action,
    Outcome,
    Reason,
    Status,
)
from streams.privacy import mask_text

STAGES = ("intake", "dedupe", "clickhouse")
_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
_RECORDS = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)


class Metrics:
    """Counters, gauges and histograms; every label value is bounded by a list in the code or by the partitions."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        # Memory, processor seconds, open files and their limit, and when the process started.
        ProcessCollector(registry=registry)
        self.build_info = Gauge(
            "citybrain_build_info", "1 for the version that runs.", ["version", "python"], registry=registry
        )
        self.messages = Counter(
            "citybrain_messages_total", "Elements read from the source topics.", ["source"], registry=registry
        )
        self.reports = Counter(
            "citybrain_reports_total",
            "Reports located and sent on, and readings that the rules must judge.",
            ["source"],
            registry=registry,
        )
        self.quiet = Counter(
            "citybrain_quiet_readings_total", "Readings that raised nothing, and cleared alarms.", registry=registry
        )
        self.dead_letters = Counter(
            "citybrain_dead_letters_total", "Messages that could not be used.", ["source", "reason"], registry=registry
        )
        self.outcomes = Counter(
            "citybrain_outcomes_total", "What became of reports.", ["source", "outcome"], registry=registry
        )
        self.corrections = Counter(
            "citybrain_corrections_total",
            "Reports whose first answer was taken back, for an incident founded later suits them better.",
            registry=registry,
        )
        self.redelivered = Counter(
            "citybrain_redelivered_reports_total", "Reports that the log delivered again.", registry=registry
        )
        self.seconds = Histogram(
            "citybrain_stage_seconds", "Time for one batch.", ["stage"], buckets=_SECONDS, registry=registry
        )
        self.batch = Histogram(
            "citybrain_batch_records", "Records in one batch.", ["stage"], buckets=_RECORDS, registry=registry
        )
        self.lag = Gauge(
            "citybrain_lag_records",
            "Records that stand in a partition of this worker and are not yet acknowledged.",
            ["topic", "partition"],
            registry=registry,
        )
        self.partitions = Gauge("citybrain_assigned_partitions", "Partitions that this worker has.", registry=registry)
        self.rebalances = Counter(
            "citybrain_rebalances_total", "Times the partitions were shared out anew.", registry=registry
        )
        self.newest = Gauge(
            "citybrain_newest_ingestion_timestamp_seconds",
            "Newest ingestion time of a report, as read from the sources and as written to ClickHouse.",
            ["at"],
            registry=registry,
        )
        self.freshness = Gauge(
            "citybrain_freshness_seconds",
            "Newest ingestion time read minus newest ingestion time written to ClickHouse.",
            registry=registry,
        )
        self.rows_written = Counter(
            "citybrain_rows_written_total", "Rows written to ClickHouse.", ["table"], registry=registry
        )
        self.unreadable = Counter(
            "citybrain_unreadable_records_total",
            "Records of our own topics that somebody else wrote; passed over.",
            ["topic"],
            registry=registry,
        )
        self.sink_waits = Counter(
            "citybrain_sink_unavailable_total",
            "Times a sink was away and had to be waited for.",
            ["sink"],
            registry=registry,
        )
        self.watermark = Gauge(
            "citybrain_watermark_timestamp_seconds", "Event time up to which a shard is complete.", ["shard"],
            registry=registry,
        )  # fmt: skip
        self.feedback = Counter(
            "citybrain_feedback_total",
            "Feedback of dispatch centres: applied, repeated, or refused and why.",
            ["action", "result"],
            registry=registry,
        )
        self.incidents = Gauge(
            "citybrain_incidents", "Incidents in the shards of this worker, by status.", ["status"], registry=registry
        )
        self.pack_info = Gauge(
            "citybrain_pack_info", "1 for the version of the city pack that reports are located by.", ["version"],
            registry=registry,
        )  # fmt: skip
        self.pack_reloads = Counter(
            "citybrain_pack_reloads_total", "Changes of the pack's folder taken up, or refused.", ["result"],
            registry=registry,
        )  # fmt: skip
        self.pack_reload_failed = Gauge(
            "citybrain_pack_reload_failed",
            "1 while the folder's pack cannot be used and the former one stays in use.",
            registry=registry,
        )
        self.places = Counter(
            "citybrain_places_total", "Hotline tickets without coordinates, placed by a name or not.", ["result"],
            registry=registry,
        )  # fmt: skip
        self.datum_offset = Gauge(
            "citybrain_datum_offset_metres",
            "How far a sender's positions lie off, by the datum it declares and the one that explains it (or none).",
            ["source", "platform", "declared", "really"],
            registry=registry,
        )
        self.build_info.labels(SERVICE_VERSION, platform.python_version()).set(1)
        self._newest_ms = {"read": 0, "written": 0}
        for source in SOURCES:
            self.messages.labels(source)
            self.reports.labels(source)
            for reason in Reason:
                self.dead_letters.labels(source, reason.value)
            for outcome in Outcome:
                self.outcomes.labels(source, outcome.value)
        for stage in STAGES:
            self.seconds.labels(stage)
            self.batch.labels(stage)
        for action in Action:
            for result in ("applied", "repeated", Reason.UNKNOWN_INCIDENT.value, Reason.ILLEGAL_TRANSITION.value):
                self.feedback.labels(action.value, result)
        for status in Status:
            self.incidents.labels(status.value)
        for result in ("ok", "failed"):
            self.pack_reloads.labels(result)
        for result in ("placed", "unplaced"):
            self.places.labels(result)
        self.saw_datums(())
        for reason in Reason:
            self.dead_letters.labels(FEEDBACK, reason.value)
        self.sink_waits.labels("clickhouse")
        for topic in (INCIDENTS, SUSPECTED_INCIDENTS, ASSIGNMENTS, DEAD_LETTERS):
            self.unreadable.labels(topic)
        for topic in (INCIDENTS, ASSIGNMENTS, DEAD_LETTERS):
            self.rows_written.labels(topic.replace("-", "_"))
        for at in self._newest_ms:
            self.newest.labels(at)

    def saw_datums(self, findings: Iterable[Finding]) -> None:
        """The senders whose positions are not where they are declared to be; of all others nothing is told.

        That a source's own positions are what they are declared to be stands there as 0 m, so that there is a series.
        """
        self.datum_offset.clear()
        for source in SOURCES:
            for declared in DATUMS:
                self.datum_offset.labels(source, "", declared, declared)
        for one in findings:
            # A platform's name is whatever its messages say.
            self.datum_offset.labels(one.source, mask_text(one.platform), one.declared, one.really or "none").set(
                one.offset_m
            )

    @contextmanager
    def timed(self, stage: str, records: int) -> Iterator[None]:
        """Observe one batch of a stage."""
        started = time.perf_counter()
        yield
        self.seconds.labels(stage).observe(time.perf_counter() - started)
        self.batch.labels(stage).observe(records)

    def saw_lag(self, waiting: Iterable[tuple[str, int, int]]) -> None:
        """Records not acknowledged, of every partition this worker has: topic without prefix, partition, records.

        Partitions that went to another worker are told no more, else their last lag would stand for good.
        """
        self.lag.clear()
        for topic, partition, records in waiting:
            self.lag.labels(topic, str(partition)).set(records)

    def saw_ingestion(self, at: str, ingested_ms: int) -> None:
        """The newest ingestion time ``read`` or ``written`` may have advanced."""
        self._newest_ms[at] = max(self._newest_ms[at], ingested_ms)
        self.newest.labels(at).set(self._newest_ms[at] / 1000)
        read, written = self._newest_ms["read"], self._newest_ms["written"]
        self.freshness.set(max(0, read - written) / 1000 if written else 0)
