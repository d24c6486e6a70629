"""A Faust transport that hands on one message per fetched batch of a partition.

Faust's own consumer makes an object, an event and an acknowledgement of each record and so tops out at about 15,000
records a second.  Here ``message.value`` is the tuple of all raw records fetched from one partition at once and
``message.offset`` the offset of the last: group membership, rebalancing, flow control and commits stay Faust's, and the
cost is paid per batch.

Registered as ``faust.transports: batchkafka``; an agent reads ``event.message.value`` and acknowledges the event, which
makes the whole batch safe to commit.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.utils.futures import notify

FETCH_MAX_WAIT_MS = 50
"""How long a broker may hold a fetch that has nothing to give.

aiokafka keeps one fetch under way for each broker.  A partition whose records were just handed on joins the next one,
so it waits as long as the idle partitions' fetch is held: at the driver's 1.5 s a worker of several topics on one
broker spent most of its time waiting.
"""


class BatchConsumerThread(driver.AIOKafkaConsumerThread):
    """The driver's thread, with a shorter wait at the broker."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        return consumer


class BatchConsumer(driver.Consumer):
    """Yields one message per partition and fetch, and commits by whole batches.

    Faust's bookkeeping finds what may be committed by looking for consecutive offsets, and a batch leaves only its last
    offset behind: with gaps between them it would commit one batch an interval, or none after a first batch of one
    record.  It also counts as acknowledged what a stream skipped because a rebalance came between.  So the order in
    which batches went out and which of them an agent acknowledged are kept here, and commits follow them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Last offsets of batches handed on and not yet committed, oldest first; bounded by the streams' buffers.
        self._handed_on: defaultdict[TP, deque[int]] = defaultdict(deque)
        self._done: defaultdict[TP, set[int]] = defaultdict(set)

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """One message per partition of what was fetched."""
        records, active = await self._wait_next_records(timeout)
        generation_id = self.app.consumer_generation_id
        if records is None or self.should_stop:
            return
        if not self.flow_active:
            await self.perform_seek()
            return
        for tp, batch in records.items():
            if not self.flow_active or self.app.consumer_generation_id != generation_id:
                break  # a rebalance: whoever gets the partition reads it from the committed offset
            if not batch or not (active is None or tp in active or tp in self._buffered_partitions):
                continue
            last = batch[-1].offset
            read = self._read_offset[tp]
            if read is not None and last < read:
                continue  # fetched before a seek; Faust would drop it, and it must not be waited for
            self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
            message: Any = self._to_message(tp, batch[-1])
            message.value = tuple(batch)
            self._handed_on[tp].append(last)
            yield tp, message

    def ack(self, message: Any) -> bool:
        """An agent has done all that a batch asks for."""
        message.acked = True
        self._unacked_messages.discard(message)
        if message.generation_id == self.app.consumer_generation_id:
            self._done[message.tp].add(message.offset)
        notify(self._waiting_for_ack)
        return True

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (tp for tp in list(self._done) if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        handed_on, done = self._handed_on[tp], self._done[tp]
        newest = None
        while handed_on and handed_on[0] in done:
            newest = handed_on.popleft()
            done.discard(newest)
        return None if newest is None else newest + 1

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Gaps between the offsets we hand on are the batches themselves."""

    async def perform_seek(self) -> None:
        """Back to the committed offsets: what was handed on comes again."""
        self._forget(list(self._handed_on))
        await super().perform_seek()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """What was handed on of a revoked partition is the next owner's to commit."""
        await super().on_partitions_revoked(revoked)
        self._forget(revoked)

    def _forget(self, tps: Iterable[TP]) -> None:
        for tp in tps:
            self._handed_on.pop(tp, None)
            self._done.pop(tp, None)


class Transport(driver.Transport):
    """Kafka by aiokafka, in batches."""

    Consumer = BatchConsumer
