"""Located reports as columns: what intake makes of messages and what dedupe decides on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.readings import RuleTerms
from streams.signatures import WORDS

NO_POSITION = np.int32(-(2**31))
"""In ``lon_e7`` and ``lat_e7``: the place could not be found."""

Ints = npt.NDArray[np.int64]
Small = npt.NDArray[np.int32]
Keys = npt.NDArray[np.uint64]
Texts = npt.NDArray[np.object_]

_DTYPES: dict[str, Any] = {
    "source": np.int8,
    "topic": np.int16,
    "partition": np.int32,
    "offset": np.int64,
    "index": np.int32,
    "mark_ms": np.int64,
    "ingested_ms": np.int64,
    "time_ms": np.int64,
    "lon_e7": np.int32,
    "lat_e7": np.int32,
    "accuracy_cm": np.int32,
    "confidence": np.float32,
    "category": np.int32,
    "cell": np.int32,
    "key_hi": np.uint64,
    "key_lo": np.uint64,
    "device_key": np.uint64,
    "asset_key": np.uint64,
    "address_key": np.uint64,
    "signature": np.uint64,
    "content": np.uint32,
    "report_id": np.object_,
    "platform": np.object_,
    "device": np.object_,
    "reading": np.object_,
    "witness": np.object_,
    "asset_id": np.object_,
    "address": np.object_,
    "text": np.object_,
}


class Reading(NamedTuple):
    """One value of one metric, and the rules that judge it, each with the number of its category in the terms."""

    metric: str
    value: float
    rules: tuple[tuple[RuleTerms, int], ...]


@dataclass(slots=True)
class LocatedReports:
    """Columns of equal length, one row a report, in stream order.

    Attributes
    ----------
    source : int8
        Index into :data:`streams.messages.SOURCES`.
    topic : int16
        Number of its topic in the terms: the source's own, or a platform's own topic of that source.
    partition, offset, index
        With the topic, the report's origin: where its record stands and which element of it it is.
    mark_ms : int64
        Newest ingestion time read from the row's source partition up to and including this row, Unix ms.
    ingested_ms, time_ms : int64
        Ingestion time and event time, Unix ms.
    lon_e7, lat_e7 : int32
        WGS-84, 1e-7 degrees (about 1 cm), or :data:`NO_POSITION`.
    accuracy_cm : int32
        One sigma, centimetres.
    confidence : float32
        0-1, as the message states it; NaN where it does not.
    category, cell : int32
        Numbers in the terms; cell -1 is the city itself.  A reading that no rule has judged yet has the category of
        its metric's first rule.
    key_hi, key_lo : uint64
        128-bit hash of (source, platform, report id).
    device_key, asset_key, address_key : uint64
        Hashes of whatever may tell that two reports speak of one place; 0 where there is none.
    signature : uint64, shape (n, words)
        Of the text (:mod:`streams.signatures`); all zero where there is none.
    content : uint32
        Hash of what the message says (label, position, asset, address, text); 0 where it must not be compared.
    report_id, platform, device, witness, asset_id, address, text : object (str)
        Empty where there is none.  ``device`` is the sensor or camera; ``witness`` the independent reporter, a caller
        as a keyed hash, `streams.witnesses.SOURCE_ITSELF` for a source that has none; address and text are masked.
    reading : object (:class:`Reading`)
        What a sensor read, for rules to judge; None for whatever is a report already.
    """

    source: npt.NDArray[np.int8]
    topic: npt.NDArray[np.int16]
    partition: Small
    offset: Ints
    index: Small
    mark_ms: Ints
    ingested_ms: Ints
    time_ms: Ints
    lon_e7: Small
    lat_e7: Small
    accuracy_cm: Small
    confidence: npt.NDArray[np.float32]
    category: Small
    cell: Small
    key_hi: Keys
    key_lo: Keys
    device_key: Keys
    asset_key: Keys
    address_key: Keys
    signature: Keys
    content: npt.NDArray[np.uint32]
    report_id: Texts
    platform: Texts
    device: Texts
    reading: Texts
    witness: Texts
    asset_id: Texts
    address: Texts
    text: Texts

    def __len__(self) -> int:
        return len(self.time_ms)

    @classmethod
    def from_columns(cls, **columns: Any) -> LocatedReports:
        """Columns of any sequence type, converted to their dtypes.

        Without a topic a report comes through its source's own; platform, device, reading, confidence, content,
        signature and the keys of its place may be left out.
        """
        rows = len(columns["time_ms"])
        columns = {
            "topic": columns["source"],
            "confidence": np.full(rows, np.nan),
            "content": np.zeros(rows, np.uint32),
            "platform": np.full(rows, "", np.object_),
            "device": np.full(rows, "", np.object_),
            "reading": np.full(rows, None, np.object_),
            **{name: np.zeros(rows, np.uint64) for name in ("device_key", "asset_key", "address_key")},
            "signature": np.zeros((rows, WORDS), np.uint64),
            **columns,
        }
        columns["reading"] = _objects(columns["reading"])
        made = {name: np.asarray(columns[name], dtype) for name, dtype in _DTYPES.items()}
        lengths = {len(column) for column in made.values()}
        if len(lengths) != 1:
            raise ValueError(f"columns differ in length: {sorted(lengths)}")
        return cls(**made)

    @classmethod
    def empty(cls) -> LocatedReports:
        """No rows."""
        return cls.from_columns(**dict.fromkeys(_DTYPES.keys() - {"signature"}, ()))

    def take(self, rows: npt.NDArray[Any] | slice) -> LocatedReports:
        """The given rows (indices, a mask or a slice), in that order."""
        return LocatedReports(**{column.name: getattr(self, column.name)[rows] for column in fields(self)})

    def reading_rows(self) -> Ints:
        """The rows that are readings for rules to judge."""
        return np.flatnonzero(self.reading.astype(np.bool_))

    @staticmethod
    def concatenate(parts: Sequence[LocatedReports]) -> LocatedReports:
        """All rows, one part after the other."""
        if not parts:
            return LocatedReports.empty()
        return LocatedReports(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in _DTYPES})


def _objects(entries: Any) -> npt.NDArray[np.object_]:
    """A column of objects, also where they are tuples of one length."""
    if isinstance(entries, np.ndarray):
        return entries
    column = np.empty(len(entries), np.object_)
    column[:] = entries if any(entry is not None for entry in entries) else None
    return column
