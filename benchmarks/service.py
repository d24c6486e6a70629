"""The service itself as a method of `benchmarks.quality`: the same replay that `citybrain replay` makes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from benchmarks.labelled_reports import Index, LabelledReports
from streams.fitting import Fitted, fit
from streams.labels import LabelledReports as Labels
from streams.messages import SOURCES
from streams.pack import CityPack
from streams.privacy import TEST_KEY
from streams.replay import Replay
from streams.terms import PackTerms


@dataclass(frozen=True)
class Replayed:
    """A pack, set for use.  Whoever learns a pack from labels gives it in ``pack``; else the reports' own stands."""

    pack: CityPack | None = None

    def predict(self, reports: LabelledReports) -> Index:
        """The incident of each report's last answer."""
        run = Replay(self.pack or reports.pack, TEST_KEY)
        assignments, _ = run.take(reports.messages)
        incident_of = {(one.source, one.report_id): one.incident_id for one in assignments if one.incident_id}
        numbers: dict[str, int] = {}
        incident = np.empty(len(reports), np.int64)
        columns = zip(reports.source.tolist(), reports.reports.report_id.tolist(), strict=True)
        for row, (source, report_id) in enumerate(columns):
            # A consultation has no incident: it is alone.
            name = incident_of.get((SOURCES[source], report_id)) or f"alone {row}"
            incident[row] = numbers.setdefault(name, len(numbers))
        return incident

    def settings(self) -> dict[str, object]:
        """The pack's version."""
        return {"pack_version": self.pack.version} if self.pack else {}


@dataclass(frozen=True)
class ServiceAsShipped:
    """The service with the pack as it stands: no dial, nothing learnt from the reports.

    Boston's pack was fitted on the very quarter that is scored (decision 006), so there it is no rival to be compared
    with those that see only the weeks before.
    """

    name: str = "service, pack as it stands"

    def train(self, _reports: LabelledReports) -> ServiceAsShipped:
        """Nothing to do."""
        return self

    def at(self, _price: float) -> Replayed:
        """The same at every price."""
        return Replayed()


@dataclass(frozen=True)
class FittedService:
    """The service as `citybrain fit` sets it: the same learning, of the same reports; the dial is its own.

    ``start`` is the pack that is given to it, where the reports' own knows too much.
    """

    name: str = "service, fitted"
    start: CityPack | None = None

    def train(self, reports: LabelledReports) -> _Learning:
        """Keep the labels; each price is learnt anew."""
        return _Learning(reports, self.start)


DIALS = (0.02, 0.05, 0.07, 0.1, 0.3)
"""A fit takes a minute or two, so not every stop of the rivals' dial has one of its own."""


class _Learning:
    def __init__(self, reports: LabelledReports, start: CityPack | None) -> None:
        self._labels = labels_of(reports, start)
        self._learnt: dict[float, _Learnt] = {}

    def at(self, price: float) -> _Learnt:
        dial = min(DIALS, key=lambda one: abs(one - price))
        if dial not in self._learnt:
            self._learnt[dial] = _Learnt(fit(self._labels, dial=dial, seed=1), dial)
        return self._learnt[dial]


@dataclass(frozen=True)
class _Learnt:
    fitted: Fitted
    price: float

    def predict(self, reports: LabelledReports) -> Index:
        return replace(self.fitted, labelled=labels_of(reports, self.fitted.labelled.pack)).incidents()

    def settings(self) -> dict[str, object]:
        return {"dial": self.price, "match": self.fitted.common, "groups": self.fitted.rows}


def labels_of(reports: LabelledReports, pack: CityPack | None = None) -> Labels:
    """The same reports as `citybrain fit` learns from them; ``pack`` stands for their own, with the same categories."""
    pack = pack or reports.pack
    return Labels(pack, PackTerms(pack), reports.reports.take(slice(None)), reports.cluster, reports.flag)
