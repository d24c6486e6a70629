"""Terms: what a decision needs to know of a city pack, carried with the reports themselves.

A pack changes while its city runs.  Were the fold of a shard to look into whatever pack it has today, a restart would
decide yesterday's reports by today's radius and tell other incidents than it told then.  So every block of the log
carries the terms it was made under, and the fold needs no pack at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
import numpy as np
import numpy.typing as npt

from geo.grid import Grid
from streams.messages import SOURCES, TOPIC_OF_SOURCE
from streams.pack import CityPack
from streams.pack_entries import Category, Match
from streams.readings import ReadingRules, RuleTerms
from streams.witnesses import UNKNOWN_ODDS, odds_of

NO_ODDS = (UNKNOWN_ODDS,) * 4
NO_POINTS = (0,) * 4


class MatchTerms(msgspec.Struct, frozen=True, array_like=True):
    """How a report and an incident of a category are weighed; points are hundredths of a power of ten.

    `streams.pack_entries.Match` says the same in the units of a pack.
    """

    prior: int | None
    """None: whatever is near enough is joined, the best first."""
    spread_cm: int
    base: int
    """Points of a report at the incident's very place, were σ² one square centimetre."""
    decay_ms: int
    same_place_cm: int
    same_place: int
    same_place_window_ms: int
    same_place_decay_ms: int
    text_percent: int
    busy_percent: int
    rival_percent: int
    gap_percent: int
    rhythm_percent: int
    sigmas: int
    reopening: int
    rethink: int
    rethink_ms: int
    unrelated: int
    related: tuple[tuple[str, int], ...]
    """Points of a report of another category of the group, by its code; `unrelated` for the others."""
    pairs: tuple[int, ...]
    """Shape (sources, sources) in one row: by the source of the founding report, then that of the report."""
    again: tuple[int, ...] = NO_POINTS
    """By source of the report, where its witness has spoken of the incident before."""

    @classmethod
    def from_match(cls, match: Match, category: Category, related: Mapping[str, float]) -> MatchTerms:
        """The terms that a pack's figures come to; ``related`` are similarities by code."""
        per_cm2 = match.alike_km2 * 1e-10
        return cls(
            match.prior,
            round(match.spread_m * 100),
            round(-100 * math.log10(2 * math.pi * per_cm2)),
            round(match.decay_s * 1000),
            round(match.same_place_m * 100),
            match.same_place,
            round(max(match.same_place_window_s, category.window_s) * 1000),
            round(match.same_place_decay_s * 1000),
            match.text_percent,
            match.busy_percent,
            match.rival_percent,
            match.gap_percent,
            match.rhythm_percent,
            match.sigmas,
            match.reopening,
            match.rethink,
            round(match.rethink_s * 1000),
            _similarity_points(match.unrelated),
            tuple(sorted((code, _similarity_points(similarity)) for code, similarity in related.items())),
            tuple(match.pairs.get((one, other), 0) for one in SOURCES for other in SOURCES),
            tuple(match.again.get(source, 0) for source in SOURCES),
        )


def _similarity_points(similarity: float) -> int:
    return max(round(100 * math.log10(similarity)), NEVER_ALIKE) if similarity > 0 else NEVER_ALIKE


NEVER_ALIKE = -10_000
"""Points of two categories of similarity 0: no evidence makes up for them."""


class CategoryTerms(msgspec.Struct, frozen=True, array_like=True):
    """What a category was when a report of it was located."""

    code: str
    name: str
    group: str
    radius_cm: int
    accuracy_cap_cm: int
    window_ms: int
    reopen_ms: int
    event: bool
    priority: int
    department: str
    match: MatchTerms
    odds: tuple[int, int, int, int] = NO_ODDS
    """By source, how far one witness is believed: log-odds in thousandths, or `UNKNOWN_ODDS`."""
    confirm_odds: int = UNKNOWN_ODDS
    """Below these odds an incident stays `suspected`; `UNKNOWN_ODDS`: none does."""


class CellCodes(msgspec.Struct, frozen=True, array_like=True):
    """The codes of a place at every level of the main grid, and in every other layer."""

    grid_code: str | None = None
    community_code: str | None = None
    street_code: str | None = None
    county_code: str | None = None
    layer_codes: tuple[tuple[str, str], ...] = ()
    """(layer, code), by layer."""


CITY_ITSELF = CellCodes()
"""A report without a position."""


class Terms:
    """Categories and cells by number, for one city; grows and never forgets, so that a number keeps its meaning.

    Bounded by the categories and cells of the packs that the city has had.

    Attributes
    ----------
    categories, cells, topics
        By number.  Cell -1 is the city itself; the first topics are those of the sources, in their order.
    south_deg, north_deg
        Between these latitudes lies whatever was located under these terms.
    """

    def __init__(self, city: str) -> None:
        self.city = city
        self.categories: list[CategoryTerms] = []
        self.cells: list[CellCodes] = []
        self.south_deg = 90.0
        self.north_deg = -90.0
        self._category_numbers: dict[CategoryTerms, int] = {}
        self._cell_numbers: dict[CellCodes, int] = {CITY_ITSELF: -1}
        self.groups: dict[str, int] = {}
        self.topics = [TOPIC_OF_SOURCE[source] for source in SOURCES]
        self._topic_numbers = {topic: number for number, topic in enumerate(self.topics)}

    def category(self, terms: CategoryTerms) -> int:
        """The number of a category."""
        number = self._category_numbers.get(terms)
        if number is None:
            number = self._category_numbers[terms] = len(self.categories)
            self.categories.append(terms)
            self.groups.setdefault(terms.group, len(self.groups))
        return number

    def cell(self, codes: CellCodes) -> int:
        """The number of a cell."""
        number = self._cell_numbers.get(codes)
        if number is None:
            number = self._cell_numbers[codes] = len(self.cells)
            self.cells.append(codes)
        return number

    def topic(self, name: str) -> int:
        """The number of a topic, without prefix."""
        number = self._topic_numbers.get(name)
        if number is None:
            number = self._topic_numbers[name] = len(self.topics)
            self.topics.append(name)
        return number

    def cover(self, south_deg: float, north_deg: float) -> None:
        """Widen the latitudes."""
        self.south_deg = min(self.south_deg, south_deg)
        self.north_deg = max(self.north_deg, north_deg)


class PackTerms(Terms):
    """The terms of one pack: its categories have the numbers that they have in the pack."""

    def __init__(self, pack: CityPack) -> None:
        super().__init__(pack.code)
        self.pack_version = pack.version
        related: dict[str, dict[str, float]] = {}
        for pair in pack.related:
            related.setdefault(pair.a, {})[pair.b] = pair.similarity
            related.setdefault(pair.b, {})[pair.a] = pair.similarity
        for category in pack.categories:
            self.category(
                CategoryTerms(
                    category.code,
                    category.name,
                    category.group,
                    round(category.radius_m * 100),
                    round(category.accuracy_cap_m * 100),
                    round(category.window_s * 1000),
                    round(category.reopen_s * 1000),
                    category.event,
                    category.priority,
                    category.department,
                    MatchTerms.from_match(category.match, category, related.get(category.code, {})),
                    _odds(pack, category),
                    odds_of(category.confirm_below),
                )
            )
        self.reading_rules = ReadingRules.from_pack(pack)
        self.rules_of_metric: dict[str, tuple[tuple[RuleTerms, int], ...]] = {
            metric: tuple((rule, pack.category_index(rule.category_code)) for rule in rules)
            for metric, rules in self.reading_rules.of_metric.items()
        }
        _, south, _, north = pack.grid.bounds
        self.cover(south, north)
        self._grid = pack.grid
        self._layers = tuple(pack.layers.items())
        # Cell of the grid (and of each layer) to cell of these terms; -2 where it was never needed.
        self._of_cell = np.full(len(pack.grid) + 1, -2, np.int32)
        self._of_cell[-1] = -1  # where no cell is
        self._of_cells: dict[tuple[int, ...], int] = {}

    def locate(self, lon_deg: npt.NDArray[np.float64], lat_deg: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
        """Number of the cell of each point, WGS-84; -1 where the main grid has none."""
        cells = self._grid.locate(lon_deg, lat_deg)
        if not self._layers:
            for cell in np.unique(cells[self._of_cell[cells] == -2]).tolist():
                self._of_cell[cell] = self.cell(_codes_of(self._grid, cell, ()))
            return self._of_cell[cells]
        inside = np.flatnonzero(cells >= 0)
        columns = [cells[inside]]
        place = cells[inside].astype(np.int64)
        for _, grid in self._layers:
            column = grid.locate(lon_deg[inside], lat_deg[inside])
            columns.append(column)
            # Numbered anew for each layer, from 0, so that no number of layers overflows.
            place = np.unique(place, return_inverse=True)[1] * (len(grid) + 1) + column + 1
        _, first, of_place = np.unique(place, return_index=True, return_inverse=True)
        numbers = np.full(len(cells), -1, np.int32)
        known = [self._of(tuple(int(column[row]) for column in columns)) for row in first.tolist()]
        numbers[inside] = np.array(known, np.int32)[of_place]
        return numbers

    def _of(self, at: tuple[int, ...]) -> int:
        number = self._of_cells.get(at)
        if number is None:
            layer_codes = tuple(
                (name, grid.codes[cell]) for (name, grid), cell in zip(self._layers, at[1:], strict=True) if cell >= 0
            )
            number = self._of_cells[at] = self.cell(_codes_of(self._grid, at[0], layer_codes))
        return number


def _odds(pack: CityPack, category: Category) -> tuple[int, int, int, int]:
    """How far one report of each source is believed about the category, its own word before its source's."""
    iot, video, hotline, patrol = (
        odds_of(category.confidence.get(source, pack.sources[source].confidence)) for source in SOURCES
    )
    return iot, video, hotline, patrol


def _codes_of(grid: Grid, cell: int, layer_codes: tuple[tuple[str, str], ...]) -> CellCodes:
    community, street, county = (
        grid.code_at(cell, level) if level in grid.levels else None for level in ("community", "street", "county")
    )
    return CellCodes(grid.codes[cell], community, street, county, layer_codes)
