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
from collections.abc import AsyncIterator
from typing import Any

from faust.transport.drivers import aiokafka as driver
from faust.types import TP


class BatchConsumer(driver.Consumer):
    """Yields one message per partition and fetch, and commits by whole batches.

    Faust's bookkeeping finds what may be committed by looking for consecutive offsets, and a batch leaves only its last
    offset behind: with gaps between them it would commit one batch an interval, or none after a first batch of one
    record.  So the order in which batches went out is kept here, and the commit follows it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Last offsets of batches handed on and not yet committed, oldest first; bounded by the streams' buffers.
        self._handed_on: defaultdict[TP, deque[int]] = defaultdict(deque)

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
            highwater = self.highwater(tp)
            self.app.monitor.track_tp_end_offset(tp, highwater)
            message: Any = self._to_message(tp, batch[-1])
            message.value = tuple(batch)
            yield tp, message

    def track_message(self, message: Any) -> None:
        """Called for each message just before the streams get it."""
        self._handed_on[message.tp].append(message.offset)
        super().track_message(message)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Gaps between the offsets we hand on are the batches themselves."""

    def _new_offset(self, tp: TP) -> int | None:
        handed_on = self._handed_on[tp]
        acked = self._acked_index[tp]
        newest = None
        while handed_on and handed_on[0] in acked:
            newest = handed_on.popleft()
            acked.discard(newest)
        self._acked[tp] = [offset for offset in self._acked[tp] if offset in acked]
        return None if newest is None else newest + 1

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """What was handed on of a revoked partition is the next owner's to commit."""
        await super().on_partitions_revoked(revoked)
        for tp in revoked:
            self._handed_on.pop(tp, None)


class Transport(driver.Transport):
    """Kafka by aiokafka, in batches."""

    Consumer = BatchConsumer
