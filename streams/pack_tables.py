"""Reads the CSV files of a city pack and names every fault with its line.

What a row may leave out, and what holds then:

- ``devices.csv``: ``crs`` (that of ``[source.video]`` for cameras, of ``[source.iot]`` for all else) and the last three
  columns.
- ``places.csv``: ``aliases`` (several are parted by ``|``), ``crs`` wgs84, ``accuracy_m`` 100, ``grid_code`` (the cell
  around the position).  It may have at most `geo.gazetteer.MAX_NAMES` names and aliases.
- ``holidays.csv``: nothing.

A line that starts with ``#`` is a comment.  Each of the files may be missing; it then holds nothing.
"""

from __future__ import annotations

import csv
import io
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from geo.datum import CRS, to_wgs84
from geo.gazetteer import MAX_NAMES
from geo.grid import Grid
from geo.place_names import is_findable, normalised
from streams.pack_entries import (
    ACCURACY_MAX_M,
    DEVICES,
    GRID,
    HOLIDAYS,
    PLACES,
    YEAR_S,
    Device,
    Fault,
    Places,
    SourceEntry,
)
from streams.toml_tables import decode_text, shown

DEVICE_COLUMNS = ("id", "kind", "lon", "lat", "crs", "accuracy_m", "asset_id", "expected_interval_s")
PLACE_COLUMNS = ("name", "aliases", "lon", "lat", "crs", "accuracy_m", "grid_code")
HOLIDAY_COLUMNS = ("date", "kind")

HOLIDAY_KINDS = ("holiday", "workday")
DEFAULT_PLACE_ACCURACY_M = 100.0
_WARNINGS_TOLD = 1_000
"""Warnings of one kind that are told one by one; the rest are counted."""
_Floats = np.ndarray[Any, np.dtype[np.float64]]


def read_devices(
    files: Mapping[str, bytes], sources: Mapping[str, SourceEntry], grid: Grid | None, faults: list[Fault]
) -> dict[str, Device]:
    """The registry's sound devices by id, in WGS-84; ``sources`` say the datum of those that do not."""
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
        interval_s = row.number("expected_interval_s", 0.001, YEAR_S)
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


def read_places(files: Mapping[str, bytes], grid: Grid | None, faults: list[Fault]) -> Places:
    """The sound places in the order of the file, in WGS-84; without a grid nothing is said of their cells."""
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


def read_holidays(files: Mapping[str, bytes], faults: list[Fault]) -> dict[date, str]:
    """The kind, of `HOLIDAY_KINDS`, of each day that is not as its weekday says."""
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
