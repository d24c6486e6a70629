"""The worker: a Faust app whose agents take a batch, call a stage, and acknowledge when everything of it is out."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import faust
import msgspec
from faust.types import TP
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from agents.metrics import Metrics
from agents.pack_folder import PackFolder
from agents.settings import Settings
from agents.stages import ClickHouseStage, DedupeStage, IntakeStage, LogReader
from sinks.clickhouse import ClickHouseSink
from sinks.errors import SinkError
from sinks.kafka import Delivery, KafkaSink
from streams.blocks import Mark
from streams.explanation import MAX_LIMIT, explain_from_sink
from streams.intake import IntakePack
from streams.messages import ASSIGNMENTS, DEAD_LETTERS, INCIDENTS, REPORTS, SUSPECTED_INCIDENTS, source_of
from streams.pack import PackError

log = logging.getLogger("citybrain.worker")

_RETRY_FIRST_S = 0.5
_RETRY_MOST_S = 30.0
_TICK_S = 1.0
_BUFFERED_BATCHES = 16
"""Fetched batches that may wait before an agent; beyond it Faust pauses the partition."""
_UNDERWAY_BATCHES = 16
"""Batches whose results are on their way to Kafka; beyond it an agent waits for the oldest."""

T = TypeVar("T")


class _App(faust.App):
    """Keeps no tables, and so makes no folders for them wherever it is started."""

    def _create_directories(self) -> None:
        pass


class Worker:
    """Builds the Faust app of one worker and holds what its agents share.

    The agents: `intake` reads the source topics, `dedupe` the `reports`, `clickhouse` what dedupe decided and every
    dead letter.  Each works on one batch at a time, in a thread, so that heartbeats and /healthz go on meanwhile.
    """

    def __init__(
        self, settings: Settings, key: bytes, made: IntakePack, kafka: KafkaSink, sink: ClickHouseSink, shards: int
    ) -> None:
        self.settings = settings
        self.metrics = Metrics(CollectorRegistry())
        self.kafka = kafka
        prefix = settings.prefix
        self.intake = IntakeStage(made, key, settings.limits(), kafka, prefix, shards, self.metrics)
        self.dedupe = DedupeStage(
            made.pack.code,
            kafka,
            prefix,
            self.metrics,
            LogReader(settings.brokers, prefix + REPORTS).read,
            lateness_s=settings.lateness_s,
            remember_s=settings.too_old_s,
        )
        self._pack_folder = PackFolder(settings.city, made.pack)
        self.clickhouse = ClickHouseStage(sink, self.metrics)
        self._intake_turn = asyncio.Lock()
        self._told_marks: dict[TP, Mark] = {}
        self._processed: dict[TP, int] = {}
        self._unflushed: list[Any] = []
        self._clickhouse_turn = asyncio.Lock()
        self._stopping = threading.Event()
        self.app = self._build()

    # ---------------------------------------------------------------------------------------------------- agents

    def _build(self) -> Any:
        settings = self.settings
        app = _App(
            settings.group,
            broker=";".join(f"batchkafka://{address.strip()}" for address in settings.brokers.split(",")),
            store="memory://",
            autodiscover=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            consumer_auto_offset_reset="earliest",
            consumer_max_fetch_size=4 << 20,
            broker_max_poll_records=settings.max_poll_records,
            broker_commit_interval=settings.commit_interval_s,
            broker_session_timeout=settings.session_timeout_s,
            broker_heartbeat_interval=settings.session_timeout_s / 10,
            broker_request_timeout=max(90.0, settings.session_timeout_s + 10),
            stream_buffer_maxsize=_BUFFERED_BATCHES,
            stream_wait_empty=False,
            # asyncio makes a socket on `::` deaf to IPv4; no address at all makes one of each family.
            web_bind="" if settings.host == "::" else settings.host,
            web_port=settings.port,
            web_host="localhost",
            worker_redirect_stdouts=False,
        )
        prefix = settings.prefix
        sources = [prefix + topic for topic in self.intake.topics]
        self._subscribed = set(sources)
        decided = [prefix + topic for topic in (INCIDENTS, SUSPECTED_INCIDENTS, ASSIGNMENTS, DEAD_LETTERS)]

        @app.agent(_raw(app, *sources), name="intake")
        async def intake(stream: Any) -> None:
            async with self._acknowledging(stream) as underway:
                async for event in stream.noack().events():
                    async with self._intake_turn:
                        delivery = await self._or_crash(self._take_source, event.message)
                    await underway.put((event, delivery))

        @app.agent(_raw(app, prefix + REPORTS), name="dedupe")
        async def dedupe(stream: Any) -> None:
            async with self._acknowledging(stream) as underway:
                async for event in stream.noack().events():
                    delivery = await self._or_crash(self._take_reports, event.message)
                    await underway.put((event, delivery))

        @app.agent(_raw(app, *decided), name="clickhouse")
        async def clickhouse(stream: Any) -> None:
            async for event in stream.noack().events():
                async with self._clickhouse_turn:
                    await self._or_crash(self._take_decided, event.message)
                    self._unflushed.append((stream, event))
                    if self.clickhouse.sink.due():
                        await self._flush()

        @app.timer(interval=0.2)
        async def flush_by_age(_app: Any) -> None:
            if self.clickhouse.sink.due() or (self._unflushed and not self.clickhouse.sink.rows):
                async with self._clickhouse_turn:
                    await self._flush()

        @app.timer(interval=_TICK_S)
        async def tick(_app: Any) -> None:
            async with self._intake_turn:
                await self._tick()

        if settings.pack_poll_s:

            @app.timer(interval=settings.pack_poll_s)
            async def look_at_pack(_app: Any) -> None:
                await asyncio.to_thread(self._look_at_pack)
                if self._pack_folder.changed is not None:
                    async with self._intake_turn:
                        self._take_up_pack()

        @app.on_partitions_assigned.connect(weak=False)
        async def assigned(_app: Any, assigned: set[TP], **_: Any) -> None:
            self.metrics.rebalances.inc()
            fields = {"event": "assigned", "partitions": len(assigned)}
            log.info("%d partitions assigned", len(assigned), extra=fields)
            # Before any of their reports: what waits in these partitions is not late.
            sources_assigned = [tp for tp in assigned if self._source_topic(tp) is not None]
            self._told_marks = {}
            for tp in sources_assigned:
                self._processed.setdefault(tp, -1)
            async with self._intake_turn:
                self.intake.forget([(tp.topic.removeprefix(prefix), tp.partition) for tp in sources_assigned])
                marks = [self._mark(tp, drained=False) for tp in sorted(sources_assigned)]
                if marks:
                    await self._or_crash(self.intake.tick, marks)

        @app.on_partitions_revoked.connect(weak=False)
        async def revoked(_app: Any, revoked: set[TP], **_: Any) -> None:
            for tp in revoked:
                self._told_marks.pop(tp, None)
                self._processed.pop(tp, None)
            shards = [tp.partition for tp in revoked if tp.topic == prefix + REPORTS]
            await asyncio.to_thread(self.dedupe.forget, shards)

        @app.on_before_shutdown.connect(weak=False)
        async def before_shutdown(_app: Any, **_: Any) -> None:
            self._stopping.set()

        self._serve(app)
        return app

    @asynccontextmanager
    async def _acknowledging(self, stream: Any) -> AsyncIterator[asyncio.Queue[tuple[Any, Delivery]]]:
        """Acknowledges batches, in order, as what came of them arrives, while the next are worked on."""
        underway: asyncio.Queue[tuple[Any, Delivery]] = asyncio.Queue(_UNDERWAY_BATCHES)

        async def acknowledge() -> None:
            while True:
                event, delivery = await underway.get()
                await self._or_crash(self.kafka.wait, delivery)
                await stream.ack(event)

        task = asyncio.create_task(acknowledge())
        try:
            yield underway
        finally:
            task.cancel()

    async def _or_crash(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run work in a thread; what it cannot handle ends the worker, for its batch must not be skipped."""
        try:
            return await asyncio.to_thread(work, *arguments)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            fields = {"event": "crashed", "error": type(error).__name__}
            log.exception("cannot go on; the batch is not acknowledged and will be read again", extra=fields)
            await self.app.crash(error)
            raise

    def _take_source(self, message: Any) -> Delivery:
        topic = message.topic.removeprefix(self.settings.prefix)
        delivery = self.intake.take(topic, message.partition, message.value)
        if self._source_topic(message.tp) is not None:
            self._processed[message.tp] = message.offset
        return delivery

    def _take_reports(self, message: Any) -> Delivery:
        return self.dedupe.take(message.partition, message.value)

    def _take_decided(self, message: Any) -> None:
        while self.clickhouse.sink.full:
            self._flush_patiently()
        self.clickhouse.add(message.topic.removeprefix(self.settings.prefix), message.value)

    async def _flush(self) -> None:
        """Insert what is buffered, then acknowledge the batches it came from."""
        unflushed, self._unflushed = self._unflushed, []
        await self._or_crash(self._flush_patiently)
        for stream, event in unflushed:
            await stream.ack(event)

    def _flush_patiently(self) -> None:
        """While ClickHouse is away the worker waits; it does not drop."""
        wait_s, waited_s = _RETRY_FIRST_S, 0.0
        while True:
            try:
                self.clickhouse.flush()
                if waited_s:
                    fields = {"event": "sink_back", "sink": "clickhouse", "wait_s": waited_s}
                    log.info("ClickHouse takes rows again", extra=fields)
                return
            except SinkError as error:
                self.metrics.sink_waits.labels("clickhouse").inc()
                fields = {"event": "sink_away", "sink": "clickhouse", "wait_s": wait_s, "error": type(error).__name__}
                log.error("%s; waiting %.1f s", error, wait_s, extra=fields)
                if self._stopping.is_set():
                    raise
                self._stopping.wait(wait_s)
                waited_s += wait_s
                wait_s = min(2 * wait_s, _RETRY_MOST_S)

    # ------------------------------------------------------------------------------------------------------ pack

    def _look_at_pack(self) -> None:
        """The old pack stays in use, loudly, while the folder's newest cannot be."""
        try:
            self._pack_folder.look()
        except PackError as error:
            self.metrics.pack_reloads.labels("failed").inc()
            fields = {"event": "pack_refused", "pack_version": self.intake.pack_version}
            log.error("the changed pack is not taken up, the former one stays in use: %s", error, extra=fields)
        except Exception as error:  # whatever it is, a pack edited beside the stream must not end it
            self.metrics.pack_reloads.labels("failed").inc()
            fields = {"event": "pack_refused", "pack_version": self.intake.pack_version, "error": type(error).__name__}
            log.exception("the changed pack cannot be made ready, the former one stays in use", extra=fields)
        # Also when the folder is mended to just what is in use, so that there is nothing to take up.
        self.metrics.pack_reload_failed.set(not self._pack_folder.is_sound)

    def _take_up_pack(self) -> None:
        made = self._pack_folder.take()
        former = self.intake.pack_version
        self.intake.use(made)
        self.metrics.pack_reloads.labels("ok").inc()
        fields = {"event": "pack_changed", "pack_version": made.pack.version, "former_pack_version": former}
        log.info("the pack changed", extra=fields)
        unread = {self.settings.prefix + topic for topic in self.intake.topics} - self._subscribed
        if unread:
            log.warning(
                "topics of new platforms are read after a restart only",
                extra={"event": "topics_unread", "topics": sorted(unread)},
            )

    # ----------------------------------------------------------------------------------------------------- marks

    def _source_topic(self, tp: TP) -> str | None:
        """The topic without prefix if reports come from it; feedback says nothing of how far they have come."""
        topic = tp.topic.removeprefix(self.settings.prefix)
        return topic if tp.topic.startswith(self.settings.prefix) and source_of(topic) is not None else None

    def _mark(self, tp: TP, *, drained: bool) -> Mark:
        topic = self._source_topic(tp)
        assert topic is not None
        return Mark(topic, tp.partition, self.intake.newest_ms(topic, tp.partition), drained)

    async def _tick(self) -> None:
        """Tell the shards what changed since the last tick: partitions that moved on or ran dry."""
        marks = []
        consumer = self.app.consumer
        # A batch may end after its partition has gone to another worker, who alone speaks for it then.
        owned = consumer.assignment()
        for tp, processed in sorted(self._processed.items()):
            if tp not in owned:
                continue
            highwater = consumer.highwater(tp)
            drained = highwater is not None and (highwater == 0 or processed + 1 >= highwater)
            if highwater is not None and processed < 0 and not drained:
                committed = consumer._committed_offset[tp]
                drained = committed is not None and committed >= highwater
            mark = self._mark(tp, drained=drained)
            if self._told_marks.get(tp) != mark:
                self._told_marks[tp] = mark
                marks.append(mark)
        if marks:
            await self._or_crash(self.intake.tick, marks)

    def _observe_partitions(self) -> None:
        """What this worker has and how far it is behind; at each scrape, so that a stuck worker shows as well."""
        consumer = self.app.consumer
        # While partitions are shared out anew, what was acknowledged of them is not known.
        owned = consumer.assignment() if consumer and consumer.flow_active else set()
        self.metrics.partitions.set(len(owned))
        waiting = []
        for tp in owned:
            # Told by the first fetch; where nothing was ever acknowledged, all that stands there waits.
            if (highwater := consumer.highwater(tp)) is not None:
                acknowledged = max(0, consumer._committed_offset[tp] or 0)
                topic = tp.topic.removeprefix(self.settings.prefix)
                waiting.append((topic, tp.partition, max(0, highwater - acknowledged)))
        self.metrics.saw_lag(waiting)

    # ------------------------------------------------------------------------------------------------------ HTTP

    def _serve(self, app: Any) -> None:
        @app.page("/metrics")
        async def metrics(web: Any, _request: Any) -> Any:
            self._observe_partitions()
            body = generate_latest(self.metrics.registry)
            return web.bytes(body, content_type=None, headers={"Content-Type": CONTENT_TYPE_LATEST})

        @app.page("/healthz")
        async def healthz(web: Any, _request: Any) -> Any:
            return web.json({"alive": True})

        @app.page("/readyz")
        async def readyz(web: Any, _request: Any) -> Any:
            assignment = len(app.consumer.assignment()) if app.consumer else 0
            reachable = await asyncio.to_thread(self.clickhouse.sink.ping)
            ready = bool(assignment) and reachable
            answer = {"ready": ready, "partitions": assignment, "clickhouse": reachable}
            return web.json(answer, status=200 if ready else 503)

        @app.page("/api/status")
        async def status(web: Any, _request: Any) -> Any:
            try:
                figures = await asyncio.to_thread(self.clickhouse.sink.figures)
            except SinkError as error:
                return web.json({"error": str(error)}, status=503)
            return web.bytes(msgspec.json.encode(figures), content_type="application/json")

        @app.page("/api/explain/{subject:.+}")
        async def explain(web: Any, request: Any, subject: str) -> Any:
            asked = request.query.get("limit", "1000")
            limit = min(int(asked), MAX_LIMIT) if asked.isdecimal() else 0
            if not limit:
                return web.json({"error": f"limit = {asked!r}: must be 1 to {MAX_LIMIT}"}, status=400)
            try:
                explained = await asyncio.to_thread(explain_from_sink, self.clickhouse.sink, subject, limit)
            except SinkError as error:
                return web.json({"error": str(error)}, status=503)
            return web.bytes(msgspec.json.encode(explained), content_type="application/json")


def _raw(app: Any, *topics: str) -> Any:
    """Topics whose values stay what the transport hands on."""
    return app.topic(*topics, key_serializer="raw", value_serializer="raw")
