"""What a city pack consists of: its files, and one frozen type for each kind of entry.

Entries are already checked and in internal units.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np

CITY = "city.toml"
GRID = "grid.geojson"
CATALOGUE = "catalogue.toml"
DEVICES = "devices.csv"
PLACES = "places.csv"
HOLIDAYS = "holidays.csv"

PACK_FILES = (CITY, GRID, CATALOGUE, DEVICES, PLACES, HOLIDAYS)
"""What a pack is made of; any other file in its folder is not read and does not change its version."""
REQUIRED_FILES = (CITY, GRID, CATALOGUE)

ACCURACY_MAX_M = 5000.0
"""The most that an accuracy may be."""
YEAR_S = 366 * 86_400.0
"""The most that a time span may be, seconds."""

_Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Fault:
    """Something wrong in a pack: where, and in one line what."""

    file: str
    line: int | None
    """None where the file as a whole is meant."""
    message: str
    severity: str = "fault"
    """``fault`` (the pack cannot be used) or ``warning``."""

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.message}" if self.severity == "fault" else f"{place}: warning: {self.message}"


@dataclass(frozen=True)
class SourceEntry:
    """What holds for all messages of a source that do not say otherwise themselves."""

    name: str
    accuracy_m: float = 50.0
    """One sigma, metres, where neither the message nor the device says."""
    crs: str = "wgs84"
    fallback_category: str | None = None
    """Category code of labels nobody has mapped; None makes them dead letters."""
    confidence: float | None = None
    """0-1, how far one report of this source can be trusted; None where the pack does not say."""
    witness: str | None = None
    """The message field that names an independent witness; None where nothing tells its reporters apart."""


@dataclass(frozen=True)
class Sla:
    """A time limit in one of the four clocks of city management."""

    amount: float
    unit: str
    """``urgent_hour`` ``work_hour`` ``work_day`` ``natural_day``."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """How the evidence that two reports speak of one event is weighed: ``[match]`` and ``[category.match]``.

    Points are hundredths of a power of ten: with 100 more the same is ten times as likely.
    """

    prior: int | None
    """Points before any evidence, against 0, at which a report joins; None: it joins whatever is near enough."""
    spread_m: float
    """How far reports of one event lie apart beyond their inaccuracy, one sigma an axis."""
    alike_km2: float
    """How many other events of the kind a square kilometre has at a time."""
    decay_s: float
    """The mean time between reports of one event."""
    same_place_m: float
    """Up to here two reports are at the same place."""
    same_place: int
    """Points for the same place: so near, or the same device, asset or address."""
    same_place_window_s: float
    """How long after the last report one at the same place still joins; never shorter than `Category.window_s`."""
    same_place_decay_s: float
    text_percent: int
    """How much of the evidence of the texts counts."""
    busy_percent: int
    """How much weighs that there are other incidents of the kind near."""
    rival_percent: int
    """How much weighs that another incident is nearly as likely."""
    gap_percent: int
    """How much weighs the time between them, which counts by the logarithm of the gap over ``decay_s``."""
    rhythm_percent: int
    """By how much more for each report but the first: after several in an hour, a day without one tells more."""
    unrelated: float
    """Similarity, 0-1, of two categories of the group that no ``[[related]]`` names."""
    reopening: int
    """Points besides `prior` for what has ended before the report's time: was it not repaired, or is it another?"""
    sigmas: int
    """How many times the accuracy of the vaguer one counts, up to `Category.accuracy_cap_m`, in what is near."""
    rethink: int
    """Points by which another incident must suit a report better that joined by nearness alone, for it to go there."""
    rethink_s: float
    """How long a report can change its mind; 0: never."""
    pairs: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Points by the source of the founding report and that of the report."""
    again: Mapping[str, int] = field(default_factory=dict)
    """Points by the source of the report, where the same caller, worker or device has reported the incident before."""


@dataclass(frozen=True, kw_only=True)
class Category:
    """One kind of event: what it is called, who handles it, and when two reports of it are one incident."""

    code: str
    name: str
    group: str
    """Only categories of one group can be the same event; a group of a city is a shard."""
    radius_m: float
    window_s: float
    accuracy_cap_m: float = 30.0
    """At most this much of a report's accuracy is added to the radius, or vague reports swallow everything."""
    reopen_s: float
    event: bool = True
    """False for consultations and praise, which found no incident."""
    priority: int
    """1 highest to 4."""
    department: str
    sla: Sla | None = None
    match: Match
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Each source's own labels for this category."""
    confidence: Mapping[str, float] = field(default_factory=dict)
    """0-1 by source, how far one report of it about this category can be trusted, where not as of any other."""
    confirm_below: float | None = None
    """0-1; an incident that is less sure than this stays `suspected`.  None: none does."""


@dataclass(frozen=True)
class Rule:
    """Turns readings into reports: above or below a threshold, for long enough."""

    metric: str
    above: float | None
    below: float | None
    clear: float | None
    """The value at which, and under (`above`) or over (`below`) which, the alarm ends; None: the threshold itself."""
    for_s: float
    category: str
    priority: int
    """1 highest to 4; the category's own unless the rule says otherwise."""
    unit: str | None = None
    """What the bounds are in; a reading that says another unit is refused.  None: any."""


@dataclass(frozen=True)
class Related:
    """Two categories that are easily mistaken for one another."""

    a: str
    b: str
    similarity: float
    """0-1."""


@dataclass(frozen=True)
class Device:
    """A sensor or camera of the registry."""

    id: str
    kind: str
    lon: float
    """Degrees, WGS-84, whatever datum the file has."""
    lat: float
    accuracy_m: float | None
    asset_id: str | None
    expected_interval_s: float | None


@dataclass(frozen=True)
class UnitConversion:
    """A platform's unit in ours: ``ours = theirs * factor + offset``."""

    unit: str
    factor: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class FieldPath:
    """Where a platform's object has something: ``payload.gps[0]``.

    Keys from outside in; ``[n]`` is an element of an array, or what stands between two commas of a text.  A key with a
    sign in it that means something here stands in double quotes.  ``^`` before it: in the envelope around the
    elements; ``?`` after it: may be missing.
    """

    text: str
    """As the pack has it, without the ``?``."""
    steps: tuple[str | int, ...]
    """The first one is a key."""
    in_envelope: bool = False
    may_be_missing: bool = False

    @classmethod
    def parse(cls, text: str) -> FieldPath:
        """Read a path; ``ValueError`` if it is none."""
        bare = text.removesuffix("?")
        within = "." + bare.removeprefix("^")
        if not _STEPS.fullmatch(within):
            raise ValueError(f"{text!r} is no path as payload.gps[0]")
        steps = (
            int(index) if index else key.strip('"') for key, index in (step.groups() for step in _STEP.finditer(within))
        )
        return cls(bare, tuple(steps), within[1:] != bare, bare != text)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys before the first ``[n]``."""
        return tuple(str(step) for step in self.steps[: len(self.steps) - len(self.within)])

    @property
    def within(self) -> tuple[str | int, ...]:
        """The first ``[n]`` and all that follows."""
        first = next((at for at, step in enumerate(self.steps) if isinstance(step, int)), len(self.steps))
        return self.steps[first:]

    def __str__(self) -> str:
        return self.text


# What JSON must escape is in no platform's keys, and msgspec cannot look for it.
_STEP = re.compile(r"""\.("[^"\\\x00-\x1f]+"|[^\s."?^\\\[\]\x00-\x1f]+)|\[(\d{1,3})\]""")
_STEPS = re.compile(rf"(?:{_STEP.pattern})+")


@dataclass(frozen=True, kw_only=True)
class PlatformMapping:
    """How an existing platform says what we read: its names, nesting, units and codes (``[platform.<name>]``)."""

    name: str
    source: str
    elements: FieldPath | None = None
    """Where the array of messages is in the envelope that each record holds; None: a record is messages."""
    crs: str | None = None
    """Datum of its positions where a message does not say; None: the source entry's."""
    time_format: str = "rfc3339"
    """``rfc3339``, ``unix_s``, ``unix_ms``, or a strptime format, local to ``time_zone``."""
    time_zone: str | None = None
    """IANA name for times without an offset; None: the city's."""
    fields: Mapping[str, tuple[FieldPath, ...]] = field(default_factory=dict)
    """Where the platform has each field of ours; an `id` may be made of several values, joined by ``-``."""
    constants: Mapping[str, str | float] = field(default_factory=dict)
    """Fields of ours that the platform does not send, as it would say them."""
    scale: Mapping[str, float] = field(default_factory=dict)
    """By field of ours, what a number is multiplied by: 0.01 for percent."""
    units: Mapping[str, tuple[UnitConversion, ...]] = field(default_factory=dict)
    """By the platform's word for a unit, in which of ours it may be said: that of the metric's rules holds, else the
    first.  A word that is not there stays as it is."""
    codes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By field of ours, what the platform's codes mean; a code that is not there stays as it is, and one that means
    the empty text says nothing."""


@dataclass(frozen=True)
class Place:
    """A named place, for tickets that come with an address and no coordinates."""

    name: str
    aliases: tuple[str, ...]
    lon: float
    """Degrees, WGS-84, whatever datum the file has."""
    lat: float
    accuracy_m: float
    grid_code: str | None


@dataclass(frozen=True, eq=False)
class Places(Sequence[Place]):
    """The places of a pack, in the file's order, as columns: a million of them are a million objects only if asked for.

    Each column has as many entries as there are places; a field of `Place` says what it holds.
    """

    names: Sequence[str] = ()
    aliases: Sequence[tuple[str, ...]] = ()
    lon: _Floats = field(default_factory=lambda: np.empty(0))
    lat: _Floats = field(default_factory=lambda: np.empty(0))
    accuracy_m: _Floats = field(default_factory=lambda: np.empty(0))
    grid_codes: Sequence[str | None] = ()

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, at: int) -> Place: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Place, ...]: ...
    def __getitem__(self, at: int | slice) -> Place | tuple[Place, ...]:
        if isinstance(at, slice):
            return tuple(self[one] for one in range(*at.indices(len(self))))
        return Place(
            self.names[at],
            self.aliases[at],
            float(self.lon[at]),
            float(self.lat[at]),
            float(self.accuracy_m[at]),
            self.grid_codes[at],
        )
