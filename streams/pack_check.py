"""Reads a city pack and names every fault with file and line (docs/contract.md).

The service, replay and ``citybrain check-city`` read packs through here, so a pack that one refuses all refuse, in the
same words.

What a file may leave out, and what holds then:

- ``[source.<name>]``: the whole entry (``accuracy_m`` 50, ``crs`` wgs84) or any key of it; ``fallback_category`` none;
  ``confidence`` none; ``witness`` the source's own reporter (``device_id``, ``camera_id``, ``caller``, ``worker_id``),
  ``"none"`` for a source whose reporters nothing tells apart: together they are one witness; ``"id"`` makes each report
  its own.
- ``[platform.<name>]``: see :mod:`streams.platform_check`.
- ``[[category]]``: ``accuracy_cap_m`` 30, ``reopen_s`` 0 (a closed incident is never reopened by a report), ``event``
  true, ``priority`` 3, ``department`` empty, no ``sla``, no ``labels``, ``confidence`` of the sources, no
  ``confirm_below``.  With ``event = false`` also ``radius_m`` and
  ``window_s`` (0).
- ``[match]`` and ``[category.match]``: see :mod:`streams.match_check`.
- ``[[rule]]``: ``clear`` (the threshold itself), ``for_s`` 0, ``priority`` (the category's), ``unit`` (any; what one
  rule of a metric says holds for all of them).
- The CSV files: see :mod:`streams.pack_tables`.

A feature of ``grid.geojson`` whose property ``layer`` is a name belongs to another grid of the city than the main one:
its codes are opaque, unique within the layer; its ``parent``, if any, is a cell of the same layer or of the main one;
its ``level`` is not read, for the layer's levels are the generations that parents within the layer make.  Layers may
overlap each other and the main one and need not cover it; two cells of one layer and generation must not overlap.  At
most `geo.grid.MAX_LAYERS` layers are read.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from geo.datum import CRS
from geo.grid import Grid, read_grid
from streams.match_check import read_match
from streams.messages import MESSAGE_OF_SOURCE, SOURCES
from streams.pack_entries import (
    ACCURACY_MAX_M,
    CATALOGUE,
    CITY,
    GRID,
    PACK_FILES,
    REQUIRED_FILES,
    YEAR_S,
    Category,
    Device,
    Fault,
    Places,
    PlatformMapping,
    Related,
    Rule,
    Sla,
    SourceEntry,
)
from streams.pack_tables import read_devices, read_holidays, read_places
from streams.platform_check import Catalogue, read_platforms
from streams.platform_times import is_time_zone
from streams.toml_tables import TomlFile, TomlTable, shown

LEVELS = ("city", "county", "street", "community", "grid")
"""The levels that outputs have a column for."""
SLA_UNITS = ("urgent_hour", "work_hour", "work_day", "natural_day")
DEFAULT_WITNESS = {"iot": "device_id", "video": "camera_id", "hotline": "caller", "patrol": "worker_id"}
_WITNESS_FIELDS = ("id", "platform", "device_id", "camera_id", "caller", "worker_id", "asset_id")

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
    for file, keys in ((city_file, ("source", "platform")), (catalogue_file, ("category", "rule", "related", "match"))):
        if file.root is not None:
            file.root.used.update(keys)
            file.root.warn_of_unknown_keys()
    devices = read_devices(files, sources, grid, faults)
    places = read_places(files, grid, faults)
    holidays = read_holidays(files, faults)
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
    common = file.root.table("match")
    if common is not None:
        # What it has wrong is told once, and not once a category.
        read_match(common, None, 0, 0)
        common.warn_of_unknown_keys()
        common = common if common.sound else None
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
        window_s = table.number("window_s", 0.0, 0, YEAR_S, required=matches)
        accuracy_cap_m = table.number("accuracy_cap_m", 30.0, 0, ACCURACY_MAX_M)
        reopen_s = table.number("reopen_s", 0.0, 0, YEAR_S)
        priority = table.whole("priority", 3, 1, 4)
        department = table.text("department", "")
        sla = _read_sla(table)
        labels = _read_labels(table, code, codes, owner_of_label)
        own = table.table("match")
        confidence = _read_confidence(table)
        confirm_below = table.number("confirm_below", None, 0, 0.99)
        table.warn_of_unknown_keys()
        if not table.sound or code is None or name is None or group is None or department is None:
            continue
        assert radius_m is not None
        assert window_s is not None
        assert accuracy_cap_m is not None
        assert reopen_s is not None
        match = read_match(common, own, radius_m, window_s)
        if match is None:
            continue
        categories.append(
            Category(
                match=match,
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
                confidence=confidence,
                confirm_below=confirm_below,
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


def _read_confidence(category: TomlTable) -> dict[str, float]:
    table = category.table("confidence")
    if table is None:
        return {}
    found: dict[str, float] = {}
    for source in SOURCES:
        confidence = table.number(source, None, 0, 1)
        if confidence is not None:
            found[source] = confidence
    for source in sorted(set(table.values) - set(SOURCES)):
        table.fault(source, f"unknown source {source!r}: not one of {', '.join(SOURCES)}")
    return found


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
