"""Reads a city pack and names every fault with file and line (CONTRACTS.md 5).

The service, replay and ``citybrain check-city`` read packs through here, so a pack that one refuses all refuse, in the
same words.

What a file may leave out, and what holds then:

- ``[source.<name>]``: the whole entry (``accuracy_m`` 50, ``crs`` wgs84) or any key of it; ``fallback_category`` none;
  ``confidence`` none; ``witness`` the source's own reporter (``device_id``, ``camera_id``, ``caller``, ``worker_id``),
  ``"none"`` for a source without one.
- ``[platform.<name>]``: see :mod:`streams.platform_check`.
- ``[[category]]``: ``accuracy_cap_m`` 30, ``reopen_s`` 0 (a closed incident is never reopened by a report), ``event``
  true, ``priority`` 3, ``department`` empty, no ``sla``, no ``labels``.  With ``event = false`` also ``radius_m`` and
  ``window_s`` (0).
- ``[[rule]]``: ``clear`` (the threshold itself), ``for_s`` 0, ``priority`` (the category's), ``unit`` (any; what one
  rule of a metric says holds for all of them).
- ``devices.csv``: ``crs`` (that of ``[source.video]`` for cameras, of ``[source.iot]`` for all else) and the last three
  columns; ``places.csv``: ``aliases`` (several are parted by ``|``), ``crs`` wgs84, ``accuracy_m`` 100, ``grid_code``
  (the cell around the position).  It may have at most `geo.gazetteer.MAX_NAMES` names and aliases.

In the CSV files a line that starts with ``#`` is a comment.

A feature of ``grid.geojson`` whose property ``layer`` is a name belongs to another grid of the city than the main one:
its codes are opaque, unique within the layer; its ``parent``, if any, is a cell of the same layer or of the main one;
its ``level`` is not read, for the layer's levels are the generations that parents within the layer make.  Layers may
overlap each other and the main one and need not cover it; two cells of one layer and generation must not overlap.  At
most `geo.grid.MAX_LAYERS` layers are read.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from geo.datum import CRS, to_wgs84
from geo.gazetteer import MAX_NAMES
from geo.grid import Grid, read_grid
from geo.place_names import is_findable, normalised
from streams.messages import MESSAGE_OF_SOURCE, SOURCES
from streams.pack_entries import Category, Device, Fault, Places, PlatformMapping, Related, Rule, Sla, SourceEntry
from streams.platform_check import Catalogue, read_platforms
from streams.platform_times import is_time_zone
from streams.toml_tables import TomlFile, TomlTable, decode_text, shown

CITY = "city.toml"
GRID = "grid.geojson"
CATALOGUE = "catalogue.toml"
DEVICES = "devices.csv"
PLACES = "places.csv"
HOLIDAYS = "holidays.csv"

PACK_FILES = (CITY, GRID, CATALOGUE, DEVICES, PLACES, HOLIDAYS)
"""What a pack is made of; any other file in its folder is not read and does not change its version."""
REQUIRED_FILES = (CITY, GRID, CATALOGUE)

LEVELS = ("city", "county", "street", "community", "grid")
"""The levels that outputs have a column for."""
SLA_UNITS = ("urgent_hour", "work_hour", "work_day", "natural_day")
HOLIDAY_KINDS = ("holiday", "workday")

DEVICE_COLUMNS = ("id", "kind", "lon", "lat", "crs", "accuracy_m", "asset_id", "expected_interval_s")
PLACE_COLUMNS = ("name", "aliases", "lon", "lat", "crs", "accuracy_m", "grid_code")
HOLIDAY_COLUMNS = ("date", "kind")

ACCURACY_MAX_M = 5000.0
DEFAULT_PLACE_ACCURACY_M = 100.0
DEFAULT_WITNESS = {"iot": "device_id", "video": "camera_id", "hotline": "caller", "patrol": "worker_id"}
_WARNINGS_TOLD = 1_000
"""Warnings of one kind that are told one by one; the rest are counted."""
_WITNESS_FIELDS = ("id", "platform", "device_id", "camera_id", "caller", "worker_id", "asset_id")
_YEAR_S = 366 * 86_400.0
_Floats = np.ndarray[Any, np.dtype[np.float64]]

# Both become part of every incident id, which stands in Kafka keys, URLs and file names: no blanks, no path separators.
_CITY_CODE = re.compile(r"[^\s:/\\]{1,32}")
_GROUP = re.compile(r"[^\s:/\\]{1,64}")
_CODE = re.compile(r"\S(?:.{0,62}\S)?")
# As long as messages may say them: a longer one would never be met.
_METRIC = re.compile(r".{1,64}")
_UNIT = re.compile(r".{1,32}")


@dataclass(frozen=True)
class CitySettings:
    """The head of ``city.toml``."""

    name: str
    code: str
    timezone: str
    levels: tuple[str, ...]


@dataclass(frozen=True)
class PackParts:
    """All entries of a pack without a fault."""

    city: CitySettings
    sources: dict[str, SourceEntry]
    grid: Grid
    layers: dict[str, Grid]
    categories: tuple[Category, ...]
    rules: tuple[Rule, ...]
    related: tuple[Related, ...]
    devices: dict[str, Device]
    places: Places
    holidays: dict[date, str]
    version: str
    platforms: dict[str, PlatformMapping]


def check_pack(files: Mapping[str, bytes]) -> list[Fault]:
    """Name every fault and every warning of a pack.

    Parameters
    ----------
    files : mapping of file name to content
        As `streams.pack.read_pack_files` gives it; names that are no part of a pack are left alone.

    Returns
    -------
    list of Fault
        By file in the order of `PACK_FILES`, then by line.  Empty for a flawless pack.
    """
    return examine_pack(files, gaps=True)[1]


def pack_version(files: Mapping[str, bytes]) -> str:
    """First 16 hex digits of a SHA-256 over names, lengths and contents of the pack's files, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(set(PACK_FILES) & set(files)):
        digest.update(f"{name}\0{len(files[name])}\0".encode())
        digest.update(files[name])
    return digest.hexdigest()[:16]


def examine_pack(files: Mapping[str, bytes], *, gaps: bool) -> tuple[PackParts | None, list[Fault]]:
    """Read a pack and check it: its parts, None if there is a fault, and all faults and warnings.

    `gaps` says whether to look for gaps inside parents: they are warnings, and cost as much as all else together.
    """
    faults: list[Fault] = []
    for name in REQUIRED_FILES:
        if name not in files:
            faults.append(Fault(name, None, "this file is missing; every pack needs it"))
    city_file = TomlFile(CITY, files, faults)
    catalogue_file = TomlFile(CATALOGUE, files, faults)
    city, levels = _read_city(city_file)
    grid: Grid | None = None
    layers: dict[str, Grid] = {}
    if GRID in files and levels:
        grid, layers, grid_faults = read_grid(files[GRID], levels, gaps=gaps)
        faults.extend(Fault(GRID, fault.line, fault.message, fault.severity) for fault in grid_faults)
    categories = _read_categories(catalogue_file)
    # A code that is there but broken has its own fault; that others refer to it needs no second one.
    known = _category_codes(catalogue_file)
    sources = _read_sources(city_file, known if catalogue_file.root is not None else None)
    rules = _read_rules(catalogue_file, categories, known)
    related = _read_related(catalogue_file, known)
    catalogue = (
        None if any(f.file == CATALOGUE and f.severity == "fault" for f in faults) else Catalogue(categories, rules)
    )
    platforms = {} if city_file.root is None else read_platforms(city_file.root, sources, catalogue)
    for file, keys in ((city_file, ("source", "platform")), (catalogue_file, ("category", "rule", "related"))):
        if file.root is not None:
            file.root.used.update(keys)
            file.root.warn_of_unknown_keys()
    devices = _read_devices(files, sources, grid, faults)
    places = _read_places(files, grid, faults)
    holidays = _read_holidays(files, faults)
    faults.sort(key=lambda fault: (PACK_FILES.index(fault.file), fault.line or 0, fault.severity, fault.message))
    if any(fault.severity == "fault" for fault in faults) or city is None or grid is None:
        return None, faults
    parts = PackParts(
        city=city,
        sources=sources,
        grid=grid,
        layers=layers,
        categories=tuple(sorted(categories, key=lambda category: category.code)),
        rules=rules,
        related=related,
        devices=devices,
        places=places,
        holidays=holidays,
        version=pack_version(files),
        platforms=platforms,
    )
    return parts, faults


def _read_city(file: TomlFile) -> tuple[CitySettings | None, tuple[str, ...]]:
    """The head of city.toml, None if it has a fault, and its levels, which the grid can be read with even so."""
    root = file.root
    if root is None:
        return None, ()
    name = root.text("name", required=True)
    code = root.text("code", required=True, pattern=_CITY_CODE)
    timezone = root.text("timezone", required=True)
    if timezone is not None and not is_time_zone(timezone):
        root.fault("timezone", f"timezone = {shown(timezone)} is not in the IANA time zone database")
    value = root.get("levels", True)
    levels: tuple[str, ...] = ()
    if value is not None:
        if not isinstance(value, list) or not value or not all(isinstance(v, str) and v for v in value):
            root.fault("levels", f"levels = {shown(value)} must be a list of names, outermost first")
        elif len(set(value)) < len(value):
            root.fault("levels", f"levels = {shown(value)} names a level twice")
        else:
            for level in sorted(set(value) - set(LEVELS)):
                message = f"level {level!r} is not one of {', '.join(LEVELS)}: outputs have no column for it"
                root.fault("levels", message, "warning")
            standard = [level for level in value if level in LEVELS]
            if standard == sorted(standard, key=LEVELS.index):
                levels = tuple(value)
            else:
                root.fault("levels", f"levels = {shown(value)} must go from outermost to innermost")
    if not root.sound or name is None or code is None or timezone is None:
        return None, levels
    return CitySettings(name, code, timezone, levels), levels


def _read_sources(file: TomlFile, known: set[str] | None) -> dict[str, SourceEntry]:
    sources = {name: SourceEntry(name, witness=DEFAULT_WITNESS[name]) for name in SOURCES}
    tables = None if file.root is None else file.root.table("source")
    if tables is None:
        return sources
    for name in tables.values:
        table = tables.table(name)
        if table is None:
            continue
        if name not in SOURCES:
            table.fault(None, f"source {name!r} is not one of {', '.join(SOURCES)}")
            continue
        default = sources[name]
        accuracy_m = table.number("accuracy_m", default.accuracy_m, 0, ACCURACY_MAX_M)
        crs = table.choice("crs", default.crs, CRS)
        fallback = table.text("fallback_category")
        if fallback is not None and known is not None and fallback not in known:
            table.fault("fallback_category", f"fallback_category = {fallback!r} is no category of {CATALOGUE}")
        confidence = table.number("confidence", None, 0, 1)
        # Only what names somebody or something: a text would travel on unmasked, a position names nobody.
        fields = [field for field in MESSAGE_OF_SOURCE[name].__struct_fields__ if field in _WITNESS_FIELDS]
        witness = table.choice("witness", default.witness, ("none", *fields))
        table.warn_of_unknown_keys()
        assert accuracy_m is not None
        assert crs is not None
        sources[name] = SourceEntry(name, accuracy_m, crs, fallback, confidence, None if witness == "none" else witness)
    return sources


def _category_codes(file: TomlFile) -> set[str]:
    items = [] if file.root is None else file.root.values.get("category")
    if not isinstance(items, list):
        return set()
    return {item["code"] for item in items if isinstance(item, dict) and isinstance(item.get("code"), str)}


def _read_categories(file: TomlFile) -> list[Category]:
    """Read the catalogue; a category with a fault is left out, so that the rest can still be checked."""
    if file.root is None:
        return []
    categories: list[Category] = []
    line_of_code: dict[str, int | None] = {}
    owner_of_label: dict[tuple[str, str], str] = {}
    codes = _category_codes(file)
    for table in file.root.tables("category"):
        code = table.text("code", required=True, pattern=_CODE)
        if code is not None:
            if code in line_of_code:
                table.fault("code", f"duplicate category {code!r}, already defined in line {line_of_code[code]}")
            line_of_code.setdefault(code, file.lines.line((*table.path, "code")))
        name = table.text("name", required=True)
        group = table.text("group", required=True, pattern=_GROUP)
        event = table.flag("event", True)
        # Only where it is plain that no incident comes of it may the rule for matching be left out.
        matches = table.values.get("event", True) is True
        radius_m = table.number("radius_m", 0.0, 0, ACCURACY_MAX_M, required=matches)
        window_s = table.number("window_s", 0.0, 0, _YEAR_S, required=matches)
        accuracy_cap_m = table.number("accuracy_cap_m", 30.0, 0, ACCURACY_MAX_M)
        reopen_s = table.number("reopen_s", 0.0, 0, _YEAR_S)
        priority = table.whole("priority", 3, 1, 4)
        department = table.text("department", "")
        sla = _read_sla(table)
        labels = _read_labels(table, code, codes, owner_of_label)
        table.warn_of_unknown_keys()
        if not table.sound or code is None or name is None or group is None or department is None:
            continue
        assert radius_m is not None
        assert window_s is not None
        assert accuracy_cap_m is not None
        assert reopen_s is not None
        categories.append(
            Category(
                code=code,
                name=name,
                group=group,
                radius_m=radius_m,
                window_s=window_s,
                accuracy_cap_m=accuracy_cap_m,
                reopen_s=reopen_s,
                event=event,
                priority=priority,
                department=department,
                sla=sla,
                labels=labels,
            )
        )
    if not line_of_code and not any(fault.file == file.name for fault in file.faults):
        file.root.fault(None, "the catalogue has no [[category]]")
    return categories


def _read_sla(category: TomlTable) -> Sla | None:
    table = category.table("sla")
    if table is None:
        return None
    amount = table.number("amount", None, 0, 10_000, above_low=True, required=True)
    unit = table.choice("unit", None, SLA_UNITS, required=True)
    table.warn_of_unknown_keys()
    if amount is None or unit is None:
        category.sound = False
        return None
    return Sla(amount, unit)


def _read_labels(
    category: TomlTable, code: str | None, codes: set[str], owner_of_label: dict[tuple[str, str], str]
) -> dict[str, tuple[str, ...]]:
    table = category.table("labels")
    if table is None:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for source, labels in table.values.items():
        if source not in SOURCES:
            table.fault(source, f"unknown label source {source!r}: not one of {', '.join(SOURCES)}")
            continue
        if not isinstance(labels, list) or not all(isinstance(v, str) and 1 <= len(v) <= 128 for v in labels):
            table.fault(
                source, f"labels of {source} = {shown(labels)} must be a list of strings of 1 to 128 characters"
            )
            continue
        for label in labels:
            owner = owner_of_label.setdefault((source, label), code or "?")
            if owner != (code or "?"):
                table.fault(source, f"duplicate label {label!r}: {source} already means category {owner!r} by it")
            elif label in codes and label != code:
                table.fault(source, f"label {label!r} of {source} is the code of another category")
            elif labels.count(label) > 1:
                table.fault(source, f"label {label!r} is listed twice for {source}", "warning")
        found[source] = tuple(dict.fromkeys(labels))
    category.sound &= table.sound
    return found


def _read_rules(file: TomlFile, categories: Sequence[Category], known: set[str]) -> tuple[Rule, ...]:
    if file.root is None:
        return ()
    rules: list[Rule] = []
    by_code = {category.code: category for category in categories}
    line_of_rule: dict[tuple[object, ...], int | None] = {}
    unit_of_metric: dict[str, tuple[str, int | None]] = {}
    clear_zones: dict[str, tuple[float, float]] = {}
    for table in file.root.tables("rule"):
        metric = table.text("metric", required=True, pattern=_METRIC)
        above = table.number("above", None, -math.inf, math.inf)
        below = table.number("below", None, -math.inf, math.inf)
        clear = table.number("clear", None, -math.inf, math.inf)
        for_s = table.number("for_s", 0.0, 0, 7 * 86_400)
        if ("above" in table.values) == ("below" in table.values):
            table.fault(None, "a rule needs either above or below, and not both")
        if clear is not None and above is not None and clear > above:
            table.fault("clear", f"clear = {clear:g} must not be over above = {above:g}")
        if clear is not None and below is not None and clear < below:
            table.fault("clear", f"clear = {clear:g} must not be under below = {below:g}")
        category = table.text("category", required=True)
        if category is not None and category not in known:
            table.fault("category", f"category = {category!r} is no category of this catalogue")
        of_category = by_code.get(category or "")
        if of_category is not None and not of_category.event:
            message = f"category = {category!r} is no event: no incident comes of this rule"
            table.fault("category", message, "warning")
        priority = table.whole("priority", of_category.priority if of_category else 3, 1, 4)
        unit = table.text("unit", pattern=_UNIT)
        table.warn_of_unknown_keys()
        if not table.sound or metric is None or category is None or for_s is None:
            continue
        line = file.lines.line(table.path)
        same = line_of_rule.setdefault((metric, above, below, for_s, category), line)
        if same != line:
            table.fault(None, f"duplicate rule: line {same} has one for the same metric, bound, time and category")
        if unit is not None:
            other, there = unit_of_metric.setdefault(metric, (unit, line))
            if other != unit:
                table.fault("unit", f"unit = {unit!r}: the rule in line {there} has {metric} in {other!r}")
        low, high = clear_zones.get(metric, (-math.inf, math.inf))
        if above is not None:
            zone = low, min(high, above if clear is None else clear)
        else:
            assert below is not None
            zone = max(low, below if clear is None else clear), high
        if low <= high and zone[0] > zone[1]:
            message = f"no value of {metric} is clear by all its rules, so every reading of it must be judged"
            table.fault(None, message, "warning")
        clear_zones[metric] = zone
        rules.append(Rule(metric, above, below, clear, for_s, category, priority, unit))
    return tuple(rules)


def _read_related(file: TomlFile, known: set[str]) -> tuple[Related, ...]:
    if file.root is None:
        return ()
    related: list[Related] = []
    seen: set[frozenset[str]] = set()
    for table in file.root.tables("related"):
        a = table.text("a", required=True)
        b = table.text("b", required=True)
        similarity = table.number("similarity", None, 0, 1, required=True)
        for key, code in (("a", a), ("b", b)):
            if code is not None and code not in known:
                table.fault(key, f"{key} = {code!r} is no category of this catalogue")
        table.warn_of_unknown_keys()
        if a is None or b is None:
            continue
        if a == b:
            table.fault("b", f"category {a!r} is related to itself")
        elif frozenset((a, b)) in seen:
            table.fault(None, f"the pair {a!r}, {b!r} is given twice")
        seen.add(frozenset((a, b)))
        if table.sound and similarity is not None:
            related.append(Related(a, b, similarity))
    return tuple(related)


# ----------------------------------------------------------------------------------------------------------- CSV


class _Row:
    """One CSV record under examination."""

    __slots__ = ("faults", "file", "line", "sound", "values")

    def __init__(self, file: str, line: int, values: dict[str, str], faults: list[Fault]) -> None:
        self.file = file
        self.line = line
        self.values = values
        self.faults = faults
        self.sound = True

    def fault(self, message: str, severity: str = "fault") -> None:
        self.faults.append(Fault(self.file, self.line, message, severity))
        if severity == "fault":
            self.sound = False

    def text(self, key: str, longest: int) -> str:
        value = self.values[key]
        if not 1 <= len(value) <= longest:
            self.fault(f"{key} = {shown(value)} must have 1 to {longest} characters")
        return value

    def number(self, key: str, low: float, high: float, *, required: bool = False) -> float | None:
        value = self.values[key]
        if not value and not required:
            return None
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            self.fault(f"{key} = {shown(value)} must be a number from {low:g} to {high:g}")
            return None
        return number

    def crs(self, default: str) -> str:
        value = self.values["crs"] or default
        if value not in CRS:
            self.fault(f"crs = {shown(value)} must be one of {', '.join(CRS)}")
        return value


def _read_rows(
    name: str, columns: Sequence[str], required: int, files: Mapping[str, bytes], faults: list[Fault]
) -> Iterator[_Row]:
    """Each record of a CSV file as a row with all `columns`; the first `required` must be in the header."""
    if name not in files:
        return
    text = decode_text(name, files[name], faults)
    if text is None:
        return
    reader = csv.reader(_without_comments(text), strict=True)
    header: list[str] | None = None
    absent: dict[str, str] = {}
    start = 1
    try:
        for record in reader:
            line, start = start, reader.line_num + 1
            values = [value.strip() for value in record]
            if not any(values):
                continue
            # A quoted text may span lines, and comments stand on lines of their own: the record's first line is
            # the first one after the previous record that is neither empty nor a comment.
            if reader.line_num > line:
                line = reader.line_num - sum(value.count("\n") for value in record)
            if header is None:
                header = values
                absent = {column: "" for column in columns if column not in header}
                if not _header_is_sound(name, line, header, columns[:required], columns, faults):
                    return
                continue
            if len(values) != len(header):
                faults.append(Fault(name, line, f"{len(values)} values where the header has {len(header)} columns"))
                continue
            yield _Row(name, line, dict(zip(header, values, strict=True)) | absent, faults)
    except csv.Error as error:
        faults.append(Fault(name, start, f"broken CSV: {error}"))
        return
    if header is None:
        faults.append(Fault(name, None, f"the header is missing: {','.join(columns)}"))


def _without_comments(text: str) -> Iterator[str]:
    """The lines of a CSV text; a comment becomes an empty line, so that line numbers stay true."""
    inside = False
    for line in io.StringIO(text, newline=""):
        if not inside and line.startswith("#"):
            yield "\n"
            continue
        inside ^= line.count('"') % 2 == 1
        yield line


def _header_is_sound(
    name: str, line: int, header: list[str], required: Sequence[str], columns: Sequence[str], faults: list[Fault]
) -> bool:
    sound = True
    for column in required:
        if column not in header:
            faults.append(Fault(name, line, f"column {column!r} is missing; the header is {','.join(columns)}"))
            sound = False
    for i, column in enumerate(header):
        if column in header[:i]:
            faults.append(Fault(name, line, f"column {column!r} is there twice"))
            sound = False
        elif column not in columns:
            faults.append(Fault(name, line, f"column {column!r} is not known; it has no effect", "warning"))
    return sound


def _read_positions(row: _Row, default_crs: str) -> tuple[float, float, str] | None:
    lon = row.number("lon", -180, 180, required=True)
    lat = row.number("lat", -90, 90, required=True)
    crs = row.crs(default_crs)
    return (lon, lat, crs) if lon is not None and lat is not None and row.sound else None


def _to_wgs84(lon_deg: ArrayLike, lat_deg: ArrayLike, crs: Sequence[str]) -> tuple[_Floats, _Floats]:
    """Positions of mixed datums in WGS-84, one conversion for each datum rather than one for each row."""
    lon, lat = np.array(lon_deg, np.float64), np.array(lat_deg, np.float64)
    of_row = np.array(crs, "U8")
    for name in CRS:
        rows = np.flatnonzero(of_row == name)
        lon[rows], lat[rows] = to_wgs84(lon[rows], lat[rows], name)
    return lon, lat


def _warn_if_outside(
    file: str, lines: Sequence[int], lon: _Floats, lat: _Floats, grid: Grid | None, faults: list[Fault]
) -> None:
    if grid is None or not len(lines):
        return
    outside = np.flatnonzero(grid.locate(lon, lat) < 0).tolist()
    for i in outside[:_WARNINGS_TOLD]:
        message = f"position {lon[i]:.6f}, {lat[i]:.6f} (WGS-84) lies in no cell of the grid"
        faults.append(Fault(file, lines[i], message, "warning"))
    _tell_rest(file, len(outside), "positions that lie in no cell of the grid", faults)


def _tell_rest(file: str, count: int, what: str, faults: list[Fault]) -> None:
    if count > _WARNINGS_TOLD:
        faults.append(Fault(file, None, f"{count - _WARNINGS_TOLD:,} more {what}", "warning"))


def _read_devices(
    files: Mapping[str, bytes], sources: Mapping[str, SourceEntry], grid: Grid | None, faults: list[Fault]
) -> dict[str, Device]:
    rows: list[_Row] = []
    positions: list[tuple[float, float, str]] = []
    accuracies: list[float | None] = []
    intervals: list[float | None] = []
    line_of_id: dict[str, int] = {}
    for row in _read_rows(DEVICES, DEVICE_COLUMNS, 4, files, faults):
        name = row.text("id", 64)
        if name in line_of_id:
            row.fault(f"duplicate device {name!r}, already in line {line_of_id[name]}")
        line_of_id.setdefault(name, row.line)
        kind = row.text("kind", 64)
        accuracy_m = row.number("accuracy_m", 0, ACCURACY_MAX_M)
        interval_s = row.number("expected_interval_s", 0.001, _YEAR_S)
        position = _read_positions(row, sources["video" if kind == "camera" else "iot"].crs)
        if row.sound and position is not None:
            rows.append(row)
            positions.append(position)
            accuracies.append(accuracy_m)
            intervals.append(interval_s)
    wgs84 = _to_wgs84([p[0] for p in positions], [p[1] for p in positions], [p[2] for p in positions])
    _warn_if_outside(DEVICES, [row.line for row in rows], *wgs84, grid, faults)
    lon, lat = (column.tolist() for column in wgs84)
    return {
        row.values["id"]: Device(
            id=row.values["id"],
            kind=row.values["kind"],
            lon=lon[i],
            lat=lat[i],
            accuracy_m=accuracies[i],
            asset_id=row.values["asset_id"] or None,
            expected_interval_s=intervals[i],
        )
        for i, row in enumerate(rows)
    }


def _read_places(files: Mapping[str, bytes], grid: Grid | None, faults: list[Fault]) -> Places:
    names: list[str] = []
    aliases: list[tuple[str, ...]] = []
    grid_codes: list[str | None] = []
    crs: list[str] = []
    lines = array("q")
    lon, lat, accuracy_m = array("d"), array("d"), array("d")
    line_of_name: dict[str, int] = {}
    count = shared = unfindable = 0
    for row in _read_rows(PLACES, PLACE_COLUMNS, 4, files, faults):
        name = row.text("name", 128)
        others = _aliases(row, name)
        count += 1 + len(others)
        if count > MAX_NAMES:
            row.fault(f"more than {MAX_NAMES:,} names and aliases; no more are taken")
            break
        for one in (name, *others):
            line = line_of_name.setdefault(one, row.line)
            if line != row.line:
                shared += 1
                if shared <= _WARNINGS_TOLD:
                    message = f"place {one!r} is already in line {line}: the name alone does not tell which"
                    row.fault(message, "warning")
            elif not is_findable(normalised(one)):
                unfindable += 1
                if unfindable <= _WARNINGS_TOLD:
                    row.fault(f"place {one!r} is never looked for: one character, or only a number", "warning")
        accuracy = row.number("accuracy_m", 0, ACCURACY_MAX_M)
        code = row.values["grid_code"]
        if code and grid is not None and code not in grid.index_of_code:
            row.fault(f"grid_code = {code!r} is no cell of {GRID}")
        position = _read_positions(row, "wgs84")
        if row.sound and position is not None:
            names.append(name)
            aliases.append(others)
            grid_codes.append(code or None)
            lines.append(row.line)
            lon.append(position[0])
            lat.append(position[1])
            crs.append(position[2])
            accuracy_m.append(DEFAULT_PLACE_ACCURACY_M if accuracy is None else accuracy)
    _tell_rest(PLACES, shared, "names that several places share", faults)
    _tell_rest(PLACES, unfindable, "names that are never looked for", faults)
    wgs84 = _to_wgs84(lon, lat, crs)
    _warn_if_outside(PLACES, lines, *wgs84, grid, faults)
    return Places(names, aliases, *wgs84, np.array(accuracy_m), grid_codes)


def _aliases(row: _Row, name: str) -> tuple[str, ...]:
    """The place's other names, each once."""
    text = row.values["aliases"]
    if not text:
        return ()
    aliases = dict.fromkeys(alias.strip() for alias in text.split("|"))
    return tuple(alias for alias in aliases if alias and alias != name)


def _read_holidays(files: Mapping[str, bytes], faults: list[Fault]) -> dict[date, str]:
    holidays: dict[date, str] = {}
    for row in _read_rows(HOLIDAYS, HOLIDAY_COLUMNS, 2, files, faults):
        day, kind = row.values["date"], row.values["kind"]
        if kind not in HOLIDAY_KINDS:
            row.fault(f"kind = {shown(kind)} must be one of {', '.join(HOLIDAY_KINDS)}")
        try:
            key = date.fromisoformat(day)
        except ValueError:
            row.fault(f"date = {shown(day)} must be a day as 2026-10-01")
            continue
        if key in holidays:
            row.fault(f"date {day} is there twice")
        holidays[key] = kind
    return holidays
