"""Witnesses: who reports independently of whom, and how sure it is what several of them say.

Confidence is kept as log-odds in thousandths, whole numbers, so that adding it up gives the same on every machine and
in every order (docs/contract.md has the formula).
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.reports import Texts

UNKNOWN_ODDS = -(2**31)
"""In place of log-odds: nobody knows how far it can be believed."""

SOURCE_ITSELF = "none"
"""The witness of all reports of a source that has none (``witness = "none"``): nothing tells one of its reporters from
another, so together they are one."""

_LEAST, _MOST = 10, 990


def _odds_of_thousandths(thousandths: int) -> int:
    share = min(max(thousandths, _LEAST), _MOST)
    return round(1000 * math.log(share / (1000 - share)))


# By table: a logarithm may differ in its last bit from machine to machine, and none of these lies near a half.
_ODDS = np.array([_odds_of_thousandths(thousandths) for thousandths in range(1001)], np.int32)


def odds_of(confidence: float | None) -> int:
    """Log-odds of a confidence of 0-1 in thousandths, taken between 0.01 and 0.99; `UNKNOWN_ODDS` of None.

    >>> odds_of(0.5), odds_of(0.8), odds_of(1.0), odds_of(None) == UNKNOWN_ODDS
    (0, 1386, 4595, True)
    """
    return UNKNOWN_ODDS if confidence is None else int(_ODDS[round(1000 * confidence)])


def odds_of_column(confidence: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """The same of a column, in which NaN says nothing."""
    says_nothing = np.isnan(confidence)
    thousandths = np.rint(np.where(says_nothing, 0, confidence).astype(np.float64) * 1000).astype(np.int64)
    return np.where(says_nothing, np.int32(UNKNOWN_ODDS), _ODDS[np.clip(thousandths, 0, 1000)])


def confidence_of(odds: int) -> float | None:
    """A confidence of 0-1, three decimals; None of `UNKNOWN_ODDS`.

    >>> confidence_of(1386), confidence_of(2 * 1386), confidence_of(UNKNOWN_ODDS)
    (0.8, 0.941, None)
    """
    return None if odds == UNKNOWN_ODDS else round(1 / (1 + math.exp(-odds / 1000)), 3)


def witness_keys(source: npt.NDArray[np.int8], witness: Texts) -> npt.NDArray[np.uint64]:
    """What tells witnesses apart: a 64-bit hash of source and name, whatever the platform; 0 without a name."""
    keys: Any = map(_witness_key, source.tolist(), witness.tolist())
    return np.fromiter(keys, np.uint64, len(witness))


@lru_cache(maxsize=1 << 16)
def _witness_key(source: int, name: str) -> int:
    if not name:
        return 0
    return int.from_bytes(hashlib.blake2b(f"{source}\0{name}".encode(), digest_size=8).digest()) or 1
