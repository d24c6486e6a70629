"""Builds a city pack for a city that has no grid yet: boundaries in, nested cells with 15-digit codes out.

Codes are 6 digits county + 3 street + 3 community + 3 cell, so a roll-up is a prefix.  Boundaries of any of
the three upper levels may be given, with or without codes; what is missing below them is invented: streets and
communities are compact groups of cells, named officially where a list of official names is given, else by number.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import shapely
from numpy.typing import NDArray

from geo.datum import to_wgs84
from geo.features import Feature, FeatureError, polygon_of, read_features
from geo.plane import metres_per_degree
from geo.tessellation import Pieces, TessellationError, bisect, join, repair, subdivide
from streams import pack_templates
from streams.pack_entries import CATALOGUE, CITY, DEVICES, GRID, PLACES

LEVELS = ("county", "street", "community", "grid")
BOUNDARY_LEVELS = LEVELS[:3]
DEFAULT_CODE_PREFIX = "990101"
"""County code of a city whose boundaries have none: GB/T 2260 gives 99 to nobody."""

_LEVEL_OF_DIGITS = {6: 0, 9: 1, 12: 2}
_DIGITS = (6, 9, 12, 15)
_CODE_PROPERTIES = ("code", "adcode", "gb", "CODE", "GB")
_NAME_PROPERTIES = ("name", "NAME", "Name")

# Three digits a step: a parent has at most this many children.
_MOST_CHILDREN = 999
# Where nobody says how many communities there are: as many cells as a community of a square kilometre has at 150 m,
# and as many communities as a middling street has.
_COMMUNITY_CELLS = 50
_STREET_COMMUNITIES = 20


class BuildError(ValueError):
    """Boundaries or names cannot be made into a pack; one line that names file, place and remedy."""


@dataclass(frozen=True, eq=False)
class Boundary:
    """A polygon that somebody published for a county, street or community."""

    level: int
    """Index into `LEVELS`."""
    code: str | None
    """All its digits, or up to three that follow its parent's, or None."""
    name: str
    geometry: Any
    """Valid, WGS-84."""
    place: str
    """File and line, for messages."""


@dataclass
class Named:
    """An official unit: its name, and its subordinates by code."""

    name: str
    children: dict[str, Named] = field(default_factory=dict)


@dataclass(frozen=True)
class BuiltPack:
    """A pack's files, and what whoever asked for it should know."""

    files: dict[str, bytes]
    cells: dict[str, int]
    """How many of each level."""
    notes: tuple[str, ...]


def read_boundaries(
    file: str,
    data: bytes,
    *,
    level_property: str | None = None,
    code_property: str | None = None,
    name_property: str | None = None,
    crs: str = "wgs84",
) -> list[Boundary]:
    """Read a GeoJSON file of boundaries and repair them.

    Parameters
    ----------
    file : str
        Its name, for messages.
    data : bytes
        A FeatureCollection of Polygons and MultiPolygons; they may be invalid and overlap.
    level_property : str, optional
        The property that says ``county``, ``street`` or ``community``.  Without it the number of digits of the code
        decides (6, 9, 12), and a boundary without such a code is a street's.
    code_property, name_property : str, optional
        Where code and name stand; else the usual ones are tried.
    crs : str
        The file's datum, one of `geo.datum.CRS`.

    Raises
    ------
    BuildError
        With file and line of the first thing that cannot be used.
    """
    try:
        features = read_features(data)
    except FeatureError as error:
        raise BuildError(f"{file}:{error.line or 1}: {error}") from error
    boundaries = []
    for feature in features:
        place = f"{file}:{feature.line}"
        code = _property(feature, code_property, _CODE_PROPERTIES, place)
        if code is not None and not (code.isascii() and code.isdigit() and len(code) in (1, 2, 3, 6, 9, 12)):
            if code_property is not None:
                raise BuildError(f"{place}: {code_property} = {code!r} must have 1 to 3, 6, 9 or 12 digits")
            code = None
        if code is not None and len(code) < 6:
            code = code.zfill(3)
        name = _property(feature, name_property, _NAME_PROPERTIES, place)
        level = _level(feature, level_property, code, place)
        try:
            geometry = polygon_of(feature.geometry)
            if crs != "wgs84":
                geometry = shapely.transform(geometry, lambda p: np.column_stack(to_wgs84(p[:, 0], p[:, 1], crs)))
            geometry = repair(geometry)
        except (FeatureError, TessellationError) as error:
            raise BuildError(f"{place}: {name or code or 'boundary'}: {error}") from error
        boundaries.append(Boundary(level, code, name or "", geometry, place))
    if not boundaries:
        raise BuildError(f"{file}: no boundary in it")
    return boundaries


def _property(feature: Feature, wanted: str | None, usual: Sequence[str], place: str) -> str | None:
    if wanted is not None and wanted not in feature.properties:
        known = ", ".join(map(str, feature.properties)) or "none"
        raise BuildError(f"{place}: no property {wanted!r}; it has {known}")
    for name in (wanted,) if wanted is not None else usual:
        value = feature.properties.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return str(value).strip()
    return None


def _level(feature: Feature, level_property: str | None, code: str | None, place: str) -> int:
    by_digits = _LEVEL_OF_DIGITS.get(len(code or ""))
    if level_property is None:
        return 1 if by_digits is None else by_digits
    value = feature.properties.get(level_property)
    if value not in BOUNDARY_LEVELS:
        legal = ", ".join(BOUNDARY_LEVELS)
        raise BuildError(f"{place}: {level_property} = {value!r} must be one of {legal} (--level-property)")
    level = BOUNDARY_LEVELS.index(value)
    if by_digits not in (None, level):
        raise BuildError(f"{place}: code {code!r} has {len(code or '')} digits, a {value}'s has {_DIGITS[level]}")
    return level


def read_official_names(file: str, data: bytes) -> dict[str, Named]:
    """Read a list of official units: counties by code, their townships, their communities.

    Parameters
    ----------
    file : str
        Its name, for messages.
    data : bytes
        CSV with ``village_code,village,township_code,township,county_code,county`` (12, 9 and 6 digits).

    Raises
    ------
    BuildError
        If a column is missing or a code does not continue its parent's.
    """
    try:
        rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        columns = [("county_code", "county"), ("township_code", "township"), ("village_code", "village")]
        missing = {name for pair in columns for name in pair} - set(rows.fieldnames or ())
        if missing:
            raise BuildError(f"{file}:1: column {', '.join(sorted(missing))} is missing")
        counties: dict[str, Named] = {}
        for row in rows:
            below, parent = counties, ""
            for (code_column, name_column), digits in zip(columns, _DIGITS[:3], strict=True):
                code, name = (row[code_column] or "").strip(), (row[name_column] or "").strip()
                if not re.fullmatch(rf"[0-9]{{{digits}}}", code) or not code.startswith(parent) or not name:
                    raise BuildError(
                        f"{file}:{rows.line_num}: {code_column} = {code!r} must have {digits} digits"
                        f"{f' and start with {parent}' if parent else ''}, and a name"
                    )
                below, parent = below.setdefault(code, Named(name)).children, code
    except (UnicodeDecodeError, csv.Error) as error:
        raise BuildError(f"{file}: not a CSV file in UTF-8: {error}") from error
    return counties


def build_pack(
    boundaries: Sequence[Boundary],
    *,
    cell_m: float,
    name: str,
    code: str | None = None,
    code_prefix: str | None = None,
    timezone: str = "Asia/Shanghai",
    names: Mapping[str, Named] | None = None,
    levels: Sequence[str] = LEVELS,
    jitter: float = 0.0,
    town_cell_m: float | None = None,
) -> BuiltPack:
    """Subdivide boundaries into a nested grid and start the other files of the pack.

    Parameters
    ----------
    boundaries : sequence of Boundary
        Of one or several levels.  Where two of a level overlap, the one with the smaller code has the area; where
        several levels are given, the finest decides, and an outer one keeps what no inner one covers.
    cell_m : float
        Side of a full cell, metres.
    name, code, timezone : str
        Of the city; the code is by default the county prefix with two zeros at its end.
    code_prefix : str, optional
        Six digits for boundaries that no county encloses; default `DEFAULT_CODE_PREFIX`.
    names : mapping, optional
        As `read_official_names` gives it.
    levels : sequence of str
        The levels of the pack, outermost first; cells of a level that is not among them are left out.
    jitter : float
        As in `geo.tessellation.subdivide`.
    town_cell_m : float, optional
        Side of a full cell in towns, where smaller.  A boundary is a town if it has more official communities than
        cells of ``cell_m``: only smaller ones give each of them a place.

    Returns
    -------
    BuiltPack
        The same bytes for the same input.

    Raises
    ------
    BuildError
        If codes clash, a boundary has more children than three digits can count, or there would be too many cells.
    """
    prefix = DEFAULT_CODE_PREFIX if code_prefix is None else code_prefix
    if not re.fullmatch("[0-9]{6}", prefix):
        raise BuildError(f"--code-prefix {prefix!r} must have six digits")
    if "grid" not in levels:
        raise BuildError(f"levels {', '.join(levels)}: the innermost must be grid, or there is nothing to build")
    builder = _Builder(names or {}, prefix, name)
    regions = builder.place(boundaries)
    try:
        sides_m = builder.sides(regions, cell_m, town_cell_m or cell_m)
        pieces = subdivide([region.geometry for region in regions], cell_m=sides_m, jitter=jitter)
    except TessellationError as error:
        raise BuildError(f"--cell-m {cell_m:g}: {error}") from error
    builder.fill(regions, pieces)
    cells = [cell for cell in builder.cells() if LEVELS[cell.level] in levels]
    lon, lat = (float(v) for v in (np.median(pieces.lon_deg), np.median(pieces.lat_deg)))
    city_code = code or _city_code(builder.counties)
    files = {
        CITY: pack_templates.CITY.format(
            name=name,
            name_toml=json.dumps(name, ensure_ascii=False),
            code=city_code,
            timezone=timezone,
            levels=", ".join(f'"{level}"' for level in levels),
        ).encode(),
        GRID: _geojson(cells),
        CATALOGUE: pack_templates.CATALOGUE.encode(),
        DEVICES: pack_templates.DEVICES.format(lon=lon, lat=lat).encode(),
        PLACES: pack_templates.PLACES.format(lon=lon, lat=lat).encode(),
    }
    counts = {level: sum(cell.level == i for cell in cells) for i, level in enumerate(LEVELS) if level in levels}
    return BuiltPack(files, counts, tuple(builder.notes))


def _city_code(counties: Mapping[str, _Unit]) -> str:
    return f"{min(counties)[:4]}00"


@dataclass(eq=False)
class _Unit:
    """A node of the tree of codes."""

    code: str
    name: str
    level: int
    children: dict[str, _Unit] = field(default_factory=dict)
    pieces: list[int] = field(default_factory=list)
    """Pieces that belong to it and to none of its children yet."""
    geometry: Any = None


@dataclass(frozen=True, eq=False)
class _Region:
    unit: _Unit
    geometry: Any


class _Builder:
    """Grows the tree of codes: first from the boundaries, then downwards by grouping pieces."""

    def __init__(self, names: Mapping[str, Named], prefix: str, city: str) -> None:
        self.names = names
        self.prefix = prefix
        self.city = city
        self.counties: dict[str, _Unit] = {}
        self.notes: list[str] = []

    # ------------------------------------------------------------------------------------------ from boundaries

    def place(self, boundaries: Sequence[Boundary]) -> list[_Region]:
        """Give every boundary its code; regions come finest level first, then by code, as overlaps are decided."""
        placed: dict[str, tuple[Boundary, _Unit]] = {}
        for level in range(len(BOUNDARY_LEVELS)):
            rank = [b for b in boundaries if b.level == level]
            # Full codes first, so that running numbers go round them; boundaries without code in the files' order.
            rank.sort(key=lambda b: 0 if len(b.code or "") > 3 else 1 if b.code else 2)
            for boundary in rank:
                unit = self._unit_of(boundary, [entry for entry in placed.values() if entry[0].level < level])
                if unit.code in placed:
                    other = placed[unit.code][0]
                    raise BuildError(f"{boundary.place}: code {unit.code} is already that of {other.place}")
                placed[unit.code] = (boundary, unit)
        order = sorted(placed.values(), key=lambda entry: (-entry[1].level, entry[1].code))
        return [_Region(unit, boundary.geometry) for boundary, unit in order]

    def _unit_of(self, boundary: Boundary, outer: Sequence[tuple[Boundary, _Unit]]) -> _Unit:
        level, code = boundary.level, boundary.code
        if code is not None and len(code) == _DIGITS[level]:
            return self._unit(code, boundary.name)
        if level == 0:
            if code is not None:
                raise BuildError(f"{boundary.place}: county code {code!r} must have six digits")
            number = _free_number({c[3:] for c in self.counties if c.startswith(self.prefix[:3])}, self.prefix[3:])
            return self._unit(self.prefix[:3] + number, boundary.name)
        parent = self._parent_of(boundary, outer)
        if code is None:
            code = _free_number({c[-3:] for c in parent.children}, "001")
        return self._unit(parent.code + code, boundary.name)

    def _parent_of(self, boundary: Boundary, outer: Sequence[tuple[Boundary, _Unit]]) -> _Unit:
        """The outer unit that holds most of the boundary, of the level just above it; invented where there is none."""
        shares = [(float(shapely.area(shapely.intersection(boundary.geometry, b.geometry))), u) for b, u in outer]
        shares = [(area, unit) for area, unit in shares if area > 0]
        if not shares:
            unit = self._unit(self.prefix, self.city)
        else:
            finest = max(unit.level for _, unit in shares)
            unit = max(((a, u) for a, u in shares if u.level == finest), key=lambda entry: (entry[0], entry[1].code))[1]
        while unit.level < boundary.level - 1:
            # A community right under a county: the street between them is that county's street of this number.
            unit = self._unit(unit.code + "001", "")
        return unit

    def _unit(self, code: str, name: str) -> _Unit:
        """The unit of a code, made with all its ancestors if it is new."""
        below, official = self.counties, dict(self.names)
        unit: _Unit | None = None
        for level, digits in enumerate(_DIGITS):
            if digits > len(code):
                break
            part = code[:digits]
            known = official.get(part)
            if part not in below:
                given = name if digits == len(code) else ""
                invented = self.city if level == 0 else f"{unit.name if unit else ''} {part[-3:]}"
                below[part] = _Unit(part, given or (known.name if known else invented), level)
            unit = below[part]
            below, official = unit.children, known.children if known else {}
        assert unit is not None
        return unit

    def sides(self, regions: Sequence[_Region], cell_m: float, town_cell_m: float) -> list[float]:
        """The side of a cell of each region."""
        bounded = {region.unit.code for region in regions}
        sides_m = []
        for region in regions:
            unit = region.unit
            m_lon, m_lat = (float(m) for m in metres_per_degree(shapely.get_y(shapely.centroid(region.geometry))))
            area_m2 = float(shapely.area(region.geometry)) * m_lon * m_lat
            communities = self._communities(unit, bounded)
            is_town = town_cell_m < cell_m and communities > area_m2 / cell_m**2
            sides_m.append(town_cell_m if is_town else cell_m)
            if is_town:
                self.notes.append(
                    f"{unit.code} {unit.name}: {communities} official communities on {area_m2 / 1e6:,.1f} km²: a town, "
                    f"cells of {town_cell_m:g} m"
                )
        return sides_m

    def _communities(self, unit: _Unit, bounded: set[str]) -> int:
        """How many official communities a boundary must find room for; those with a boundary of their own need none."""
        if unit.level == 2:
            return 0
        below = {code: named for code, named in self._official(unit).items() if code not in bounded}
        if unit.level == 1:
            return len(below)
        return sum(code not in bounded for street in below.values() for code in street.children)

    # ------------------------------------------------------------------------------------------------- downwards

    def fill(self, regions: Sequence[_Region], pieces: Pieces) -> None:
        """Hand the pieces to the regions and group them down to communities and numbered cells."""
        self.pieces = pieces
        m_lon, m_lat = metres_per_degree(np.median(pieces.lat_deg))
        self.x_m, self.y_m = pieces.lon_deg * m_lon, pieces.lat_deg * m_lat
        order = np.argsort(pieces.region, kind="stable")
        for row in order.tolist():
            regions[pieces.region[row]].unit.pieces.append(row)
        for region in regions:
            unit = region.unit
            if unit.pieces:
                self._split(unit)
            elif not unit.children:
                self.notes.append(f"{unit.code} {unit.name}: others cover it entirely; it gets no cell")

    def _split(self, unit: _Unit) -> None:
        """Give a unit's own pieces to children of the next level, down to the cells."""
        rows = np.array(sorted(unit.pieces), dtype=np.int64)
        unit.pieces = []
        if unit.level == 2:
            self._number_cells(unit, rows)
            return
        taken = {code for code, child in unit.children.items() if child.level == unit.level + 1}
        official = [(c, n.name) for c, n in sorted(self._official(unit).items()) if c not in taken]
        free = _MOST_CHILDREN - len(taken)
        groups = self._how_many(unit, len(rows), len(official))
        if groups > free:
            raise BuildError(
                f"{unit.code} {unit.name}: {groups} parts are more than three digits count; raise --cell-m"
            )
        if len(official) > groups:
            self.notes.append(
                f"{unit.code} {unit.name}: {len(rows)} cells have room for {groups} of {len(official)} official names; "
                "smaller cells take more"
            )
        group = bisect(self.x_m[rows], self.y_m[rows], groups)
        numbers = iter(range(1, 1000))
        for g, members in enumerate(self._from_north_west(rows, group, groups)):
            if g < len(official):
                child_code, child_name = official[g]
            else:
                reserved = taken | {c for c, _ in official} | set(unit.children)
                child_code = next(c for n in numbers if (c := f"{unit.code}{n:03d}") not in reserved)
                child_name = ""
            child = self._unit(child_code, child_name)
            child.pieces = members.tolist()
            self._split(child)

    def _official(self, unit: _Unit) -> Mapping[str, Named]:
        found: Mapping[str, Named] = self.names
        for digits in _DIGITS[: unit.level + 1]:
            known = found.get(unit.code[:digits])
            if known is None:
                return {}
            found = known.children
        return found

    def _how_many(self, unit: _Unit, cells: int, official: int) -> int:
        """How many children a unit with this many cells gets, so that none of its communities has over 999 of them."""
        if unit.level == 1:
            least = math.ceil(cells / _MOST_CHILDREN)
            wanted = official or math.ceil(cells / _COMMUNITY_CELLS)
        else:
            least = math.ceil(cells / _MOST_CHILDREN**2)
            wanted = official or math.ceil(cells / (_COMMUNITY_CELLS * _STREET_COMMUNITIES))
        return min(max(least, min(wanted, _MOST_CHILDREN)), cells)

    def _from_north_west(
        self, rows: NDArray[np.int64], group: NDArray[np.int64], groups: int
    ) -> list[NDArray[np.int64]]:
        """The groups' rows, northernmost group first, as people number districts on a map."""
        members = [rows[group == g] for g in range(groups)]
        return sorted(members, key=lambda m: (-float(self.y_m[m].mean()), float(self.x_m[m].mean()), int(m[0])))

    def _number_cells(self, unit: _Unit, rows: NDArray[np.int64]) -> None:
        if len(rows) > _MOST_CHILDREN:
            raise BuildError(
                f"{unit.code} {unit.name}: {len(rows)} cells, at most {_MOST_CHILDREN} can be numbered; raise --cell-m"
            )
        order = np.lexsort((rows, self.x_m[rows], -self.y_m[rows]))
        for number, row in enumerate(rows[order].tolist(), start=1):
            code = f"{unit.code}{number:03d}"
            unit.children[code] = _Unit(code, "", 3, geometry=self.pieces.geometries[row])

    # ----------------------------------------------------------------------------------------------------- output

    def cells(self) -> list[_Unit]:
        """Every unit with a polygon, sorted by code; an outer one is the union of its children."""
        found: list[_Unit] = []

        def unite(unit: _Unit) -> None:
            for child in unit.children.values():
                unite(child)
            shapes = [child.geometry for child in unit.children.values() if child.geometry is not None]
            if shapes:
                unit.geometry = join(np.array(shapes, dtype=object), np.zeros(len(shapes), dtype=np.int64))[0]
            if unit.geometry is not None:
                found.append(unit)

        for county in self.counties.values():
            unite(county)
        return sorted(found, key=lambda unit: unit.code)


def _free_number(taken: set[str], first: str) -> str:
    """The first three-digit number from `first` on that is not taken."""
    for number in range(int(first), 1000):
        if f"{number:03d}" not in taken:
            return f"{number:03d}"
    raise BuildError(f"more than {_MOST_CHILDREN} boundaries share a parent; three digits cannot count them")


def _geojson(cells: Sequence[_Unit]) -> bytes:
    """One feature a line, so that a fault's line number leads to one cell."""
    lines = []
    codes = {cell.code for cell in cells}
    for cell in cells:
        outer = (cell.code[:digits] for digits in reversed(_DIGITS[: cell.level]))
        parent = next((code for code in outer if code in codes), None)
        properties: dict[str, Any] = {"code": cell.code, "level": LEVELS[cell.level], "parent": parent}
        properties["name"] = cell.name or cell.code
        # Normal form turns outer rings clockwise, RFC 7946 wants them the other way round.
        geometry = shapely.reverse(shapely.normalize(cell.geometry))
        parts = [_rings(part) for part in shapely.get_parts(geometry)]
        feature = {
            "type": "Feature",
            "properties": properties,
            "geometry": {
                "type": geometry.geom_type,
                "coordinates": parts if geometry.geom_type == "MultiPolygon" else parts[0],
            },
        }
        lines.append(orjson.dumps(feature))
    return b'{"type":"FeatureCollection","features":[\n' + b",\n".join(lines) + b"\n]}\n"


def _rings(polygon: Any) -> list[Any]:
    """Coordinates with seven decimals; they lie on that grid already, this only takes the floats' tails off."""
    return [np.round(shapely.get_coordinates(ring), 7).tolist() for ring in shapely.get_rings(polygon)]
