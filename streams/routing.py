"""Which shard decides on what: a category group of a city is a shard's, whatever the city's other groups do."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from streams.feedback import Feedback
from streams.reports import LocatedReports
from streams.terms import Terms


def shard_of_group(city: str, group: str, shards: int) -> int:
    """The partition of `reports` that carries a category group of a city: a stable hash."""
    digest = hashlib.blake2b(f"{city}\0{group}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) % shards


def owner(city: str, shard: int, shards: int) -> Callable[[str], bool]:
    """Tells whether a shard has a category group."""
    return lambda group: shard_of_group(city, group, shards) == shard


_EVERY_SHARD = -1


class Router:
    """Splits what was located under some terms into the parts of the shards.

    A reading goes to every shard: each judges it alike, and the one that has the category of the rule that reports
    makes the report.  Were it sent only to those that have a category of its metric's rules, a rule that comes with a
    changed pack could bring a shard that knows nothing of what was raised before.
    """

    def __init__(self, terms: Terms, shards: int) -> None:
        self._terms = terms
        self._shards = shards
        self._of_category = np.zeros(0, np.int64)

    def split(
        self, reports: LocatedReports, feedback: Sequence[Feedback] = ()
    ) -> dict[int, tuple[npt.NDArray[np.int64], list[int], list[Feedback]]]:
        """By shard, ascending: the rows of its reports, the places of its feedback, and that feedback.

        The feedback's ``before`` counts the shard's own reports.
        """
        rows_of: dict[int, npt.NDArray[np.int64]] = {}
        if len(reports):
            of_row = self._shard_of_category()[reports.category]
            readings = reports.reading_rows()
            of_row[readings] = _EVERY_SHARD
            shards = range(self._shards) if len(readings) else np.unique(of_row).tolist()
            rows_of = {shard: np.flatnonzero((of_row == shard) | (of_row == _EVERY_SHARD)) for shard in shards}
        feedback_of: dict[int, list[int]] = {}
        for place, one in enumerate(feedback):
            feedback_of.setdefault(shard_of_group(self._terms.city, one.group, self._shards), []).append(place)
        parts = {}
        for shard in sorted(rows_of.keys() | feedback_of.keys()):
            rows = rows_of.get(shard, np.zeros(0, np.int64))
            places = feedback_of.get(shard, [])
            before = np.searchsorted(rows, [feedback[place].before for place in places]).tolist()
            mine = [
                msgspec.structs.replace(feedback[place], before=count)
                for place, count in zip(places, before, strict=True)
            ]
            parts[shard] = (rows, places, mine)
        return parts

    def _shard_of_category(self) -> npt.NDArray[np.int64]:
        categories = self._terms.categories
        if len(self._of_category) != len(categories):
            self._of_category = np.array(
                [shard_of_group(self._terms.city, category.group, self._shards) for category in categories], np.int64
            )
        return self._of_category
