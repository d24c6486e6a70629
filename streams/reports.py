"""Located reports as columns: what intake makes of messages and what dedupe decides on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

NO_POSITION = np.int32(-(2**31))
"""In ``lon_e7`` and ``lat_e7``: the place could not be found."""

Ints = npt.NDArray[np.int64]
Small = npt.NDArray[np.int32]
Keys = npt.NDArray[np.uint64]
Texts = npt.NDArray[np.object_]

_DTYPES: dict[str, Any] = {
    "source": np.int8,
    "partition": np.int32,
    "offset": np.int64,
    "index": np.int32,
    "mark_ms": np.int64,
    "ingested_ms": np.int64,
    "time_ms": np.int64,
    "lon_e7": np.int32,
    "lat_e7": np.int32,
    "accuracy_cm": np.int32,
    "category": np.int32,
    "cell": np.int32,
    "key_hi": np.uint64,
    "key_lo": np.uint64,
    "report_id": np.object_,
    "witness": np.object_,
    "asset_id": np.object_,
    "address": np.object_,
    "text": np.object_,
}


@dataclass(slots=True)
class LocatedReports:
    """Columns of equal length, one row a report, in stream order.

    Attributes
    ----------
    source : int8
        Index into :data:`streams.messages.SOURCES`.
    partition, offset, index
        With the source's topic, the report's origin: where its record stands and which element of it it is.
    mark_ms : int64
        Newest ingestion time read from the row's source partition up to and including this row, Unix ms.
    ingested_ms, time_ms : int64
        Ingestion time and event time, Unix ms.
    lon_e7, lat_e7 : int32
        WGS-84, 1e-7 degrees (about 1 cm), or :data:`NO_POSITION`.
    accuracy_cm : int32
        One sigma, centimetres.
    category, cell : int32
        Index into the pack's categories; index into its grid's cells, -1 for the city itself.
    key_hi, key_lo : uint64
        128-bit hash of (source, platform, report id).
    report_id, witness, asset_id, address, text : object (str)
        Empty where there is none.  ``witness`` is the independent reporter, a caller as a keyed hash; address and
        text are masked.
    """

    source: npt.NDArray[np.int8]
    partition: Small
    offset: Ints
    index: Small
    mark_ms: Ints
    ingested_ms: Ints
    time_ms: Ints
    lon_e7: Small
    lat_e7: Small
    accuracy_cm: Small
    category: Small
    cell: Small
    key_hi: Keys
    key_lo: Keys
    report_id: Texts
    witness: Texts
    asset_id: Texts
    address: Texts
    text: Texts

    def __len__(self) -> int:
        return len(self.time_ms)

    @classmethod
    def from_columns(cls, **columns: Any) -> LocatedReports:
        """Columns of any sequence type, converted to their dtypes."""
        made = {name: np.asarray(columns[name], dtype) for name, dtype in _DTYPES.items()}
        lengths = {len(column) for column in made.values()}
        if len(lengths) != 1:
            raise ValueError(f"columns differ in length: {sorted(lengths)}")
        return cls(**made)

    @classmethod
    def empty(cls) -> LocatedReports:
        """No rows."""
        return cls.from_columns(**{name: [] for name in _DTYPES})

    def take(self, rows: npt.NDArray[Any] | slice) -> LocatedReports:
        """The given rows (indices, a mask or a slice), in that order."""
        return LocatedReports(**{column.name: getattr(self, column.name)[rows] for column in fields(self)})

    @staticmethod
    def concatenate(parts: Sequence[LocatedReports]) -> LocatedReports:
        """All rows, one part after the other."""
        if not parts:
            return LocatedReports.empty()
        return LocatedReports(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in _DTYPES})
