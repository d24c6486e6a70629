"""The management grid: nested cells, and which of them a point lies in.

Reading is forgiving in one way only: every fault of a file is found in one go, so that whoever mends it need not come
back once per fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray

from geo.features import Feature, FeatureError, polygon_of, read_features
from geo.fence import Fence
from geo.plane import metres_per_degree

OVERLAP_LIMIT_M2 = 1.0
"""Two cells of one level may share at most this area, square metres: what rounding of coordinates makes."""

MAX_LAYERS, MAX_DEPTH = 16, 8
"""Layers beside the main one, and generations within one of them."""

_OVERLAPS_TOLD = 1_000
_OVERLAP_BLOCK = 1_000

# Only codes of this shape promise that a roll-up is a prefix: so many digits are of a county, a street and so on.
_DIGITS_OF_LEVEL = {"county": 6, "street": 9, "community": 12, "grid": 15}


@dataclass(frozen=True)
class GridFault:
    """Something wrong in a grid file; `line` is where the cell starts, None for the file as a whole."""

    line: int | None
    message: str
    severity: str = "fault"
    """``fault`` or ``warning``."""


class GridError(ValueError):
    """A grid cannot be used; `faults` lists everything that is wrong with it, warnings left out."""

    def __init__(self, faults: Sequence[GridFault]) -> None:
        self.faults = list(faults)
        super().__init__("; ".join(f"line {f.line}: {f.message}" if f.line else f.message for f in self.faults))


@dataclass(frozen=True, eq=False)
class Grid:
    """Every cell of every level of one layer, sorted by code; a cell is an index into these arrays."""

    levels: tuple[str, ...]
    """Outermost first; of a layer other than the main one ``"1"``, ``"2"`` and so on, by generation."""
    codes: tuple[str, ...]
    """Ascending, unique."""
    names: tuple[str, ...]
    level: NDArray[np.int8]
    """(n_cells,) index into `levels`."""
    parent: NDArray[np.int32]
    """(n_cells,) cell index, -1 for none; always a cell of an outer level."""
    ancestors: NDArray[np.int32]
    """(n_cells, n_levels) the cell itself at its own level, its parents at outer ones, -1 where there is none."""
    bounds: tuple[float, float, float, float]
    """min_lon, min_lat, max_lon, max_lat, degrees WGS-84."""
    geometries: NDArray[np.object_] = field(repr=False)
    """(n_cells,) shapely Polygons or MultiPolygons."""

    def __len__(self) -> int:
        return len(self.codes)

    @cached_property
    def index_of_code(self) -> dict[str, int]:
        """Cell index of each code."""
        return {code: index for index, code in enumerate(self.codes)}

    @cached_property
    def _fences(self) -> tuple[tuple[NDArray[np.int32], Fence], ...]:
        """Per level, innermost first: the cells of the level (ascending, so by code) and their fence."""
        fences = []
        for level in range(len(self.levels) - 1, -1, -1):
            cells = np.flatnonzero(self.level == level).astype(np.int32)
            if len(cells):
                fences.append((cells, Fence(self.geometries[cells])))
        return tuple(fences)

    def locate(self, lon_deg: ArrayLike, lat_deg: ArrayLike) -> NDArray[np.int32]:
        """Find the finest cell that covers each point.

        Parameters
        ----------
        lon_deg, lat_deg : float64 array_like, shape (n,)
            Degrees, WGS-84.

        Returns
        -------
        int32 array, shape (n,)
            A cell of the innermost level that covers the point, boundary included; of several the one with the
            smallest code; where the level has none, one of the next outer level; -1 outside all, or not finite.
        """
        lon = np.asarray(lon_deg, dtype=np.float64)
        lat = np.asarray(lat_deg, dtype=np.float64)
        found = np.full(lon.shape, -1, dtype=np.int32)
        missing = np.arange(len(found))
        for cells, fence in self._fences:
            first = fence.first_covering(lon[missing], lat[missing])
            hit = first >= 0
            found[missing[hit]] = cells[first[hit]]
            missing = missing[~hit]
            if not len(missing):
                break
        return found

    def code_at(self, cell: int, level: str) -> str | None:
        """The code of what lies around a cell at a level of `levels`, None where that is not known.

        It is that of the cell itself or of the parent that it has there.  Where no parent is given for the level, it
        is a prefix: of the cell's code, or of the nearest parent's that has the usual shape (6, 9, 12 or 15
        digits) and more of them than codes of the level have.  No cell need have that code.
        """
        around: list[int] = self.ancestors[cell, : int(self.level[cell]) + 1].tolist()
        at = self.levels.index(level)
        if at >= len(around):
            return None
        if around[at] >= 0:
            return self.codes[around[at]]
        digits = _DIGITS_OF_LEVEL.get(level)
        for inner in reversed(around[at + 1 :]):
            if digits is not None and inner >= 0 and _is_national(self.codes[inner]):
                return self.codes[inner][:digits] if len(self.codes[inner]) > digits else None
        return None

    @classmethod
    def from_geojson(cls, data: bytes, levels: Sequence[str]) -> Grid:
        """Read the main layer of a ``grid.geojson`` (docs/contract.md).

        Parameters
        ----------
        data : bytes
            A FeatureCollection, WGS-84; properties ``code``, ``level``, ``parent``, ``name``, optional ``layer``.
        levels : sequence of str
            Outermost first.

        Raises
        ------
        GridError
            With every fault of the file, each with its line (of overlaps the first thousand of a level).
        """
        grid, _, faults = read_grid(data, levels)
        if grid is None:
            raise GridError([fault for fault in faults if fault.severity == "fault"])
        return grid


def read_grid(
    data: bytes, levels: Sequence[str], *, gaps: bool = False
) -> tuple[Grid | None, dict[str, Grid], list[GridFault]]:
    """Read a grid with all its layers and say everything that is wrong with it.

    Parameters
    ----------
    data, levels
        As for `Grid.from_geojson`.  The levels are those of the main layer; what another layer's cells say of theirs
        is not read, their levels are the generations that their parents make.
    gaps : bool
        Also compare each cell with the union of its children and warn of gaps and of children that stick out.

    Returns
    -------
    grid : Grid or None
        The main layer; None if there is a fault in any (a warning is none).
    layers : dict
        The other layers by name, sorted; empty if there is a fault.  A parent in the main layer is checked for being
        there and not linked.
    faults : list of GridFault
        In order of line.
    """
    try:
        features = read_features(data)
    except FeatureError as error:
        return None, {}, [GridFault(error.line, str(error))]
    faults: list[GridFault] = []
    cells, known = _read_cells(features, levels, faults)
    main = [cell for cell in cells if cell.layer is None]
    if not main and not faults:
        faults.append(GridFault(None, "the grid has no cell"))
    _link(main, known, faults)
    by_layer: dict[str | None, list[_Cell]] = {None: main}
    for name in sorted({cell.layer for cell in cells if cell.layer is not None}):
        by_layer[name] = [cell for cell in cells if cell.layer == name]
        _link_generations(by_layer[name], known, faults)
    if len(by_layer) - 1 > MAX_LAYERS:
        faults.append(GridFault(None, f"{len(by_layer) - 1} layers beside the main one; at most {MAX_LAYERS} are read"))
    for members in by_layer.values():
        _find_overlaps(members, faults)
        if gaps:
            _find_gaps(members, faults)
    faults.sort(key=lambda fault: (fault.line or 0, fault.severity, fault.message))
    if any(fault.severity == "fault" for fault in faults):
        return None, {}, faults
    layers = {name: _assemble(members, _generations(members)) for name, members in by_layer.items() if name is not None}
    return _assemble(main, tuple(levels)), layers, faults


@dataclass
class _Cell:
    line: int
    layer: str | None
    code: str
    name: str
    level: int
    """Index into the layer's levels."""
    parent_code: str | None
    geometry: Any
    parent: _Cell | None = None

    def __str__(self) -> str:
        return f"cell {self.code!r}" if self.layer is None else f"cell {self.code!r} of layer {self.layer!r}"


def _read_cells(
    features: Sequence[Feature], levels: Sequence[str], faults: list[GridFault]
) -> tuple[list[_Cell], dict[tuple[Any, str], int]]:
    """Read what can be read of each feature; a cell that is broken in itself takes no part in later checks.

    Also returns the line of each (layer, code), broken ones included.
    """
    drawn: list[_Cell] = []
    sound: list[bool] = []
    seen: dict[tuple[Any, str], int] = {}
    for feature in features:
        problems: list[str] = []
        properties = feature.properties
        code, level, name = properties.get("code"), properties.get("level"), properties.get("name")
        parent_code, layer = properties.get("parent"), properties.get("layer")
        if layer is not None and not _is_word(layer):
            problems.append(f"layer {layer!r} must be a non-empty string without outer spaces or be left out")
            layer = ""
        if not _is_word(code):
            problems.append(f"code {code!r} must be a non-empty string without outer spaces")
        else:
            assert isinstance(code, str)
            if (layer, code) in seen:
                problems.append(f"duplicate code {code!r}, already used in line {seen[layer, code]}")
            seen.setdefault((layer, code), feature.line)
        if layer is None and level not in levels:
            problems.append(f"cell {code!r}: level {level!r} is not one of city.toml's {', '.join(levels)}")
        if parent_code is not None and (not isinstance(parent_code, str) or not parent_code):
            problems.append(f"cell {code!r}: parent {parent_code!r} must be a code or null")
        if name is not None and not isinstance(name, str):
            problems.append(f"cell {code!r}: name {name!r} must be a string")
        geometry = None
        try:
            geometry = polygon_of(feature.geometry)
        except FeatureError as error:
            problems.append(f"cell {code!r}: {error}")
        faults.extend(GridFault(feature.line, problem) for problem in problems)
        if geometry is not None:
            rank = levels.index(level) if layer is None and level in levels else 0
            drawn.append(_Cell(feature.line, layer, str(code), name or str(code), rank, parent_code, geometry))
            sound.append(not problems)
    # All at once: one at a time, shapely's wrapper costs ten times the work.
    geometries = np.array([cell.geometry for cell in drawn], dtype=object)
    valid = shapely.is_valid(geometries) & ~shapely.is_empty(geometries)
    for k in np.flatnonzero(~valid).tolist():
        reason = shapely.is_valid_reason(geometries[k])
        faults.append(GridFault(drawn[k].line, f"{drawn[k]}: invalid polygon: {reason}"))
    return [cell for cell, is_sound, is_valid in zip(drawn, sound, valid, strict=True) if is_sound and is_valid], seen


def _is_word(value: object) -> bool:
    return isinstance(value, str) and value != "" and value == value.strip()


def _link(cells: Sequence[_Cell], known: Mapping[tuple[Any, str], int], faults: list[GridFault]) -> None:
    """Find the parent of each cell of the main layer and compare their codes and levels."""
    by_code = {cell.code: cell for cell in cells}
    for cell in cells:
        if cell.parent_code is None:
            continue
        parent = by_code.get(cell.parent_code)
        if parent is None:
            # A parent that is there but broken has its own fault; its thousand children need none.
            if (None, cell.parent_code) not in known:
                message = f"{cell}: orphan, no cell has its parent's code {cell.parent_code!r}"
                faults.append(GridFault(cell.line, message))
        elif parent.level >= cell.level:
            faults.append(GridFault(cell.line, f"{cell}: parent {parent.code!r} is not of an outer level"))
        elif not code_agrees(cell.code, parent.code):
            faults.append(GridFault(cell.line, f"{cell}: code disagrees with its parent {parent.code!r}"))
        else:
            cell.parent = parent


def _link_generations(cells: Sequence[_Cell], known: Mapping[tuple[Any, str], int], faults: list[GridFault]) -> None:
    """Find the parent of each cell of another layer; a cell's level is the number of its parents within the layer.

    Codes are not compared: those of other layers are opaque.
    """
    by_code = {cell.code: cell for cell in cells}
    for cell in cells:
        if cell.parent_code is None:
            continue
        cell.parent = by_code.get(cell.parent_code)
        if cell.parent is None and not {(cell.layer, cell.parent_code), (None, cell.parent_code)} & known.keys():
            message = f"{cell}: orphan, no cell of its layer or of the main one has its parent's code"
            faults.append(GridFault(cell.line, f"{message} {cell.parent_code!r}"))
    for cell in cells:
        outer, cell.level = cell.parent, 0
        while outer is not None and cell.level < MAX_DEPTH:
            outer, cell.level = outer.parent, cell.level + 1
        if cell.level == MAX_DEPTH:
            message = f"{cell}: it has {MAX_DEPTH} parents, one in another, or they lead back to it; fewer are read"
            faults.append(GridFault(cell.line, message))


def _generations(cells: Sequence[_Cell]) -> tuple[str, ...]:
    return tuple(str(level + 1) for level in range(max(cell.level for cell in cells) + 1))


def code_agrees(code: str, parent_code: str) -> bool:
    """Whether a code may be a child of another: where both have 6, 9, 12 or 15 digits it must start with it.

    A prefecture's code ends in two zeros that its counties' codes do not share (140300, 140302), a province's in four.

    >>> code_agrees("140302001", "140302"), code_agrees("140302001", "140303"), code_agrees("140302", "140300")
    (True, False, True)
    >>> code_agrees("block-7", "140302")
    True
    """
    if not (_is_national(code) and _is_national(parent_code)):
        return True
    if len(code) > len(parent_code) and code.startswith(parent_code):
        return True
    prefix = parent_code
    if len(prefix) == 6 and prefix.endswith("00"):
        prefix = prefix[:2] if prefix.endswith("0000") else prefix[:4]
        return code.startswith(prefix)
    return False


def _is_national(code: str) -> bool:
    return code.isascii() and code.isdigit() and len(code) in _DIGITS_OF_LEVEL.values()


def _area_m2(geometries: NDArray[np.object_]) -> NDArray[np.float64]:
    """Area of small polygons on the ellipsoid, square metres, by the degree's size at the middle latitude."""
    box = shapely.bounds(geometries)
    m_lon, m_lat = metres_per_degree((box[:, 1] + box[:, 3]) * 0.5)
    area: NDArray[np.float64] = np.nan_to_num(shapely.area(geometries) * m_lon * m_lat)
    return area


def _find_overlaps(cells: Sequence[_Cell], faults: list[GridFault]) -> None:
    for level in sorted({cell.level for cell in cells}):
        same = sorted((cell for cell in cells if cell.level == level), key=lambda cell: cell.line)
        geometries = np.array([cell.geometry for cell in same], dtype=object)
        box = shapely.bounds(geometries)
        tree = shapely.STRtree(geometries)
        found = 0
        # A block at a time: of cells that all lie on top of one another every pair overlaps, too many to hold.
        for start in range(0, len(same), _OVERLAP_BLOCK):
            a, b = tree.query(geometries[start : start + _OVERLAP_BLOCK])
            a += start
            a, b = a[a > b], b[a > b]
            width = np.minimum(box[a, 2], box[b, 2]) - np.maximum(box[a, 0], box[b, 0])
            height = np.minimum(box[a, 3], box[b, 3]) - np.maximum(box[a, 1], box[b, 1])
            m_lon, m_lat = metres_per_degree(box[a, 1])
            # Boxes of neighbours often only touch; a box as small as the limit cannot hold an overlap above it.
            worth = np.flatnonzero(width * m_lon * height * m_lat > OVERLAP_LIMIT_M2 * 0.5)
            for part in range(0, len(worth), _OVERLAP_BLOCK):
                i, j = a[worth[part : part + _OVERLAP_BLOCK]], b[worth[part : part + _OVERLAP_BLOCK]]
                # Most neighbours share a border and no inner point, and that is told sooner than how much they share.
                meet = shapely.relate_pattern(geometries[i], geometries[j], "T********")
                i, j = i[meet], j[meet]
                area = _area_m2(shapely.intersection(geometries[i], geometries[j]))
                for k in np.flatnonzero(area > OVERLAP_LIMIT_M2):
                    second, first = same[i[k]], same[j[k]]
                    message = f"{second} overlaps cell {first.code!r} of line {first.line} by {area[k]:,.0f} m²"
                    faults.append(GridFault(second.line, message))
                    found += 1
                if found >= _OVERLAPS_TOLD:
                    message = f"{found:,} overlaps so far among the cells of one level; the rest are not looked for"
                    faults.append(GridFault(None, message))
                    break
            if found >= _OVERLAPS_TOLD:
                break


def _find_gaps(cells: Sequence[_Cell], faults: list[GridFault]) -> None:
    children: dict[str, list[_Cell]] = {}
    for cell in cells:
        if cell.parent is not None:
            children.setdefault(cell.parent.code, []).append(cell)
    for parent in cells:
        if parent.code not in children or _tiles_exactly(parent, children[parent.code]):
            continue
        union = shapely.union_all([child.geometry for child in children[parent.code]])
        inside, outside = _area_m2(
            np.array([shapely.difference(parent.geometry, union), shapely.difference(union, parent.geometry)])
        )
        if inside > OVERLAP_LIMIT_M2:
            message = f"{parent}: its children leave a gap of {inside:,.0f} m²"
            faults.append(GridFault(parent.line, message, "warning"))
        if outside > OVERLAP_LIMIT_M2:
            message = f"{parent}: its children reach {outside:,.0f} m² beyond it"
            faults.append(GridFault(parent.line, message, "warning"))


def _tiles_exactly(parent: _Cell, children: Sequence[_Cell]) -> bool:
    """Whether the children's outlines cancel out to the parent's: quick, and true of every grid made as a coverage.

    An edge that two children share counts twice and vanishes; if exactly the parent's edges are left, disjoint
    children (overlaps are looked for elsewhere) fill the parent.  False decides nothing: vertices may just differ.
    """
    shapes = np.array([parent.geometry, *(child.geometry for child in children)], dtype=object)
    points, ring = shapely.get_coordinates(shapely.get_rings(shapely.get_parts(shapes)), return_index=True)
    vertex = np.unique(points[:, 0] + 1j * points[:, 1], return_inverse=True)[1].astype(np.int64)
    start = np.flatnonzero(ring[1:] == ring[:-1])
    u, v = vertex[start], vertex[start + 1]
    _, times = np.unique(np.minimum(u, v) * (len(vertex) + 1) + np.maximum(u, v), return_counts=True)
    return bool((times % 2 == 0).all())


def _assemble(cells: Sequence[_Cell], levels: tuple[str, ...]) -> Grid:
    ordered = sorted(cells, key=lambda cell: cell.code)
    index = {cell.code: i for i, cell in enumerate(ordered)}
    geometries = np.empty(len(ordered), dtype=object)
    geometries[:] = [cell.geometry for cell in ordered]
    ancestors = np.full((len(ordered), len(levels)), -1, dtype=np.int32)
    for i, cell in enumerate(ordered):
        step: _Cell | None = cell
        while step is not None:
            ancestors[i, step.level] = index[step.code]
            step = step.parent
    min_lon, min_lat, max_lon, max_lat = (float(v) for v in shapely.total_bounds(geometries))
    parent = [-1 if cell.parent is None else index[cell.parent.code] for cell in ordered]
    return Grid(
        levels=levels,
        codes=tuple(cell.code for cell in ordered),
        names=tuple(cell.name for cell in ordered),
        level=np.array([cell.level for cell in ordered], dtype=np.int8),
        parent=np.array(parent, dtype=np.int32),
        ancestors=ancestors,
        bounds=(min_lon, min_lat, max_lon, max_lat),
        geometries=geometries,
    )
