"""Subdivides boundaries into grid cells that share their edges exactly.

Boundaries as cities publish them overlap a little, leave slivers between neighbours and do not share vertices.  So
nothing here cuts one polygon by another: all boundary lines and all lattice lines are noded *together* on a grid of
1e-7 degrees (about a centimetre), the faces between them are cells, and every coarser polygon is a union of faces.
Neighbours then share their edges vertex by vertex, whatever the input was like.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geo.fence import Fence
from geo.plane import metres_per_degree

PRECISION_DEG = 1e-7
"""Coordinates are whole multiples of this, about a centimetre."""

MAX_CELLS = 300_000
"""More lattice squares than this are refused: a slip of `cell_m` would otherwise take all memory."""

# A piece below this share of a full square joins a neighbour of its own region ...
_SLIVER_SHARE = 0.25
# ... and one below this that has none was made by two boundaries that nearly agree: it joins any neighbour.
_NOISE_SHARE = 0.02

# An islet below this that touches nothing is a slip of the pen, not a place.
_SPECK_M2 = 1.0

_UNITS_PER_DEG = 10_000_000


class TessellationError(ValueError):
    """Boundaries cannot be subdivided as asked."""


@dataclass(frozen=True, eq=False)
class Pieces:
    """The finest cells: disjoint, sharing their edges vertex by vertex."""

    geometries: NDArray[np.object_]
    """(n,) Polygons or MultiPolygons, coordinates multiples of `PRECISION_DEG`."""
    region: NDArray[np.int32]
    """(n,) index of the region each lies in."""
    lon_deg: NDArray[np.float64]
    """(n,) centroid."""
    lat_deg: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.geometries)


def repair(geometry: Any) -> Any:
    """Make a polygon valid and drop what is no area: lines and points that repairing left behind.

    A ring that crosses itself keeps the area it encloses; a hole that lies outside its polygon vanishes.

    Raises
    ------
    TessellationError
        If no area is left.
    """
    if not shapely.is_valid(geometry):
        geometry = shapely.make_valid(geometry, method="structure", keep_collapsed=False)
    parts = [part for part in shapely.get_parts(geometry) if part.geom_type == "Polygon" and not part.is_empty]
    if not parts:
        raise TessellationError("the boundary encloses no area")
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def subdivide(regions: Sequence[Any], *, cell_m: float | Sequence[float], jitter: float = 0.0, seed: int = 0) -> Pieces:
    """Cut regions into cells of about ``cell_m`` by ``cell_m``.

    Parameters
    ----------
    regions : sequence of shapely Polygon or MultiPolygon, length r
        Valid, WGS-84 degrees, in order of preference: where two overlap the area goes to the first.
    cell_m : float or sequence of float, length r
        Side of a full cell, metres, > 0; of all regions or of each.
    jitter : float, 0 to 0.4
        Moves the lattice's corners by up to this share of a side, for cells that are no squares.
    seed : int
        Of the jitter.

    Returns
    -------
    Pieces
        In no order that means anything, but the same for the same input.  A piece smaller than a quarter of a full
        cell has joined the neighbour of its region with which it shares the longest edge; holes between regions of
        less than that are closed; specks below a square metre that touch nothing are dropped.  A region that
        others cover entirely has no piece.

    Raises
    ------
    TessellationError
        If ``cell_m`` would make more than `MAX_CELLS` lattice squares.
    """
    side_m = np.broadcast_to(np.asarray(cell_m, dtype=np.float64), len(regions))
    if not (side_m > 0).all() or not 0 <= jitter <= 0.4:
        raise TessellationError(f"cell_m = {cell_m} must be above 0, jitter = {jitter} from 0 to 0.4")
    shapes = np.array(regions, dtype=object)
    lattices = {float(side): _lattice(shapes[side_m == side], float(side), jitter, seed) for side in np.unique(side_m)}
    squares = np.concatenate(list(lattices.values()))
    lines = np.concatenate([shapely.boundary(squares), shapely.boundary(shapes)])
    noded = shapely.union_all(lines, grid_size=PRECISION_DEG)
    faces = shapely.get_parts(shapely.polygonize(shapely.get_parts(noded)))
    faces = faces[_stable_order(faces)]

    inner = shapely.point_on_surface(faces)
    x, y = shapely.get_x(inner), shapely.get_y(inner)
    region = Fence(shapes).first_covering(x, y)
    # Lines of one lattice also cut the faces of another's regions; those have one square and become one piece again.
    square = np.full(len(faces), -1, dtype=np.int32)
    before = 0
    for side, own in lattices.items():
        rows = np.flatnonzero((region >= 0) & (side_m[region] == side))
        square[rows] = before + Fence(own).first_covering(x[rows], y[rows])
        before += len(own)
    hole = _small_holes(shapes, float(side_m.min())).first_covering(x, y)
    kept = (region >= 0) | (hole >= 0)
    faces, region, square = faces[kept], region[kept], square[kept]
    if not len(faces):
        raise TessellationError("the boundaries enclose less than the precision of coordinates")

    label, owner = _merge(faces, region, square, side_m)
    geometries = join(faces, label)
    m_lon, m_lat = metres_per_degree(shapely.get_y(shapely.centroid(geometries)))
    kept = (owner >= 0) & (shapely.area(geometries) * m_lon * m_lat >= _SPECK_M2)
    geometries, owner = geometries[kept], owner[kept]
    centre = shapely.centroid(geometries)
    return Pieces(geometries, owner, shapely.get_x(centre), shapely.get_y(centre))


def join(geometries: NDArray[np.object_], group: NDArray[np.int64]) -> NDArray[np.object_]:
    """Unite polygons that share their edges vertex by vertex, group by group.

    Parameters
    ----------
    geometries : object array, shape (n,)
    group : int array, shape (n,)
        From 0 to g - 1, none left out.

    Returns
    -------
    object array, shape (g,)
        Every vertex of the outline is kept, so the unions share their edges vertex by vertex too.
    """
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    united = np.empty(len(starts), dtype=object)
    for g, members in enumerate(np.split(order, starts[1:])):
        united[g] = geometries[members[0]] if len(members) == 1 else shapely.coverage_union_all(geometries[members])
    return united


def bisect(x: NDArray[np.float64], y: NDArray[np.float64], groups: int) -> NDArray[np.int64]:
    """Divide points into compact groups of nearly equal size, by halving along the longer side again and again.

    Parameters
    ----------
    x, y : float64 arrays, shape (n,)
        In one unit, so that "longer" means something.
    groups : int
        1 to n.

    Returns
    -------
    int64 array, shape (n,)
        Group of each point, 0 to ``groups`` - 1; sizes differ by at most a few, and no group is empty.
    """
    if not 1 <= groups <= len(x):
        raise ValueError(f"groups = {groups} must be from 1 to the number of points, {len(x)}")
    group = np.zeros(len(x), dtype=np.int64)
    todo = [(np.arange(len(x)), 0, groups)]
    while todo:
        rows, first, count = todo.pop()
        if count == 1:
            group[rows] = first
            continue
        wide = np.ptp(x[rows]) >= np.ptp(y[rows])
        order = rows[np.lexsort((rows, y[rows], x[rows]) if wide else (rows, x[rows], y[rows]))]
        half = count // 2
        at = len(rows) * half // count
        todo += [(order[:at], first, half), (order[at:], first + half, count - half)]
    return group


def _stable_order(faces: NDArray[np.object_]) -> NDArray[np.intp]:
    """Polygonize promises no order; this one depends on where the faces lie and on nothing else."""
    box = np.rint(shapely.bounds(faces) * _UNITS_PER_DEG).astype(np.int64)
    return np.lexsort((shapely.area(faces), box[:, 3], box[:, 2], box[:, 1], box[:, 0]))


def _lattice(shapes: NDArray[np.object_], cell_m: float, jitter: float, seed: int) -> NDArray[np.object_]:
    """The squares of a lattice that touch any of the shapes."""
    min_lon, min_lat, max_lon, max_lat = shapely.total_bounds(shapes)
    m_lon, m_lat = (float(m) for m in metres_per_degree((min_lat + max_lat) * 0.5))
    step = np.array([cell_m / m_lon, cell_m / m_lat])
    # One spare square all round, so that a corner moved inwards still leaves the boundary covered.
    low = np.floor(np.array([min_lon, min_lat]) / step) - 1
    high = np.ceil(np.array([max_lon, max_lat]) / step) + 1
    columns, rows = (int(n) for n in high - low)
    area_m2 = float(shapely.area(shapes).sum()) * m_lon * m_lat
    if area_m2 / cell_m**2 > MAX_CELLS or columns * rows > 40 * MAX_CELLS:
        at_least_m = math.ceil(math.sqrt(max(area_m2 / MAX_CELLS, columns * rows * cell_m**2 / (40 * MAX_CELLS))))
        raise TessellationError(
            f"cells of {cell_m:g} m make {area_m2 / cell_m**2:,.0f} of them, at most {MAX_CELLS:,} are built at once; "
            f"take {at_least_m} m or more, or fewer boundaries"
        )
    i, j = np.meshgrid(np.arange(columns + 1), np.arange(rows + 1), indexing="ij")
    corners = np.stack([i, j], axis=-1) + low
    if jitter:
        corners += np.random.default_rng(seed).uniform(-jitter, jitter, corners.shape)
    corners = np.round(corners * step, 7)
    # Whole rows of far-away squares (islands in a wide box) are never made into geometries.
    tree = shapely.STRtree(shapely.box(*np.moveaxis(_spans(corners), -1, 0)).ravel())
    near = np.unique(tree.query(shapes, predicate="intersects")[1])
    a, b = np.divmod(near, rows)
    ring = np.stack([corners[a, b], corners[a + 1, b], corners[a + 1, b + 1], corners[a, b + 1], corners[a, b]], axis=1)
    return np.asarray(shapely.polygons(ring), dtype=object)


def _spans(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """(columns, rows, 4) bounding box of each square of a lattice."""
    four = np.stack([corners[:-1, :-1], corners[1:, :-1], corners[1:, 1:], corners[:-1, 1:]])
    spans: NDArray[np.float64] = np.concatenate([four.min(axis=0), four.max(axis=0)], axis=-1)
    return spans


def _small_holes(shapes: NDArray[np.object_], cell_m: float) -> Fence:
    """Enclosed gaps between the shapes that are too small to be meant."""
    _, min_lat, _, max_lat = shapely.total_bounds(shapes)
    m_lon, m_lat = (float(m) for m in metres_per_degree((min_lat + max_lat) * 0.5))
    rings = [ring for part in shapely.get_parts(shapely.union_all(shapes)) for ring in part.interiors]
    holes = shapely.polygons(rings) if rings else np.empty(0, dtype=object)
    return Fence(holes[shapely.area(holes) * m_lon * m_lat < _SLIVER_SHARE * cell_m**2])


def _shared_edges(
    faces: NDArray[np.object_], m_lon: float, m_lat: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Pairs of faces with a common edge, and that edge's length in metres; each pair once, a < b."""
    rings, face_of_ring = shapely.get_rings(faces, return_index=True)
    points, ring_of_point = shapely.get_coordinates(rings, return_index=True)
    units = np.rint(points * _UNITS_PER_DEG).astype(np.int64)
    vertex = np.unique((units[:, 0] << 32) + units[:, 1], return_inverse=True)[1].astype(np.int64)
    start = np.flatnonzero(ring_of_point[1:] == ring_of_point[:-1])
    u, v = vertex[start], vertex[start + 1]
    face = face_of_ring[ring_of_point[start]].astype(np.int64)
    length_m = np.hypot(*((points[start + 1] - points[start]) * (m_lon, m_lat)).T)
    order = np.lexsort((face, np.maximum(u, v), np.minimum(u, v)))
    key = np.stack([np.minimum(u, v), np.maximum(u, v)])[:, order]
    twin = np.flatnonzero((key[:, 1:] == key[:, :-1]).all(axis=0))
    a, b, length_m = face[order][twin], face[order][twin + 1], length_m[order][twin]
    pair, inverse = np.unique(a * len(faces) + b, return_inverse=True)
    total_m = np.bincount(inverse, weights=length_m, minlength=len(pair))
    return pair // len(faces), pair % len(faces), total_m.astype(np.float64)


def _merge(
    faces: NDArray[np.object_], region: NDArray[np.int32], square: NDArray[np.int32], side_m: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Label faces by the piece they belong to, and say each piece's region.

    A piece is one square of one region, with the slivers that joined it; those of another region, and closed holes
    (region -1), take the region of what they joined.
    """
    box = shapely.total_bounds(faces)
    m_lon, m_lat = (float(m) for m in metres_per_degree((box[1] + box[3]) * 0.5))
    area_m2 = (shapely.area(faces) * m_lon * m_lat).tolist()
    a, b, length_m = _shared_edges(faces, m_lon, m_lat)
    owner = region.tolist()
    border: list[dict[int, float]] = [{} for _ in range(len(faces))]
    for i, j, metres in zip(a.tolist(), b.tolist(), length_m.tolist(), strict=True):
        border[i][j] = metres
        border[j][i] = metres
    root = list(range(len(faces)))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    def absorb(into: int, piece: int) -> None:
        root[piece] = into
        area_m2[into] += area_m2[piece]
        for neighbour, metres in border[piece].items():
            del border[neighbour][piece]
            if neighbour != into:
                border[into][neighbour] = border[into].get(neighbour, 0.0) + metres
                border[neighbour][into] = border[into][neighbour]
        border[piece] = {}

    same = (region[a] >= 0) & (region[a] == region[b]) & (square[a] == square[b])
    for i, j in zip(a[same].tolist(), b[same].tolist(), strict=True):
        i, j = find(i), find(j)
        if i != j:
            absorb(min(i, j), max(i, j))

    full_m2 = (side_m[region] ** 2).tolist()  # of holes, which have no region, never asked
    # Smallest first: two slivers side by side may together be a piece worth keeping.
    heap = [
        (area_m2[i], i)
        for i in range(len(faces))
        if root[i] == i and (owner[i] < 0 or area_m2[i] < _SLIVER_SHARE * full_m2[i])
    ]
    heapq.heapify(heap)
    while heap:
        size_m2, i = heapq.heappop(heap)
        if root[i] != i or size_m2 != area_m2[i]:
            continue
        near = [n for n in border[i] if owner[n] >= 0 and owner[n] == owner[i]]
        if not near and (owner[i] < 0 or size_m2 < _NOISE_SHARE * full_m2[i]):
            near = [n for n in border[i] if owner[n] >= 0] or list(border[i])
        if not near:
            continue
        into = min(near, key=lambda n: (-border[i][n], n))
        absorb(into, i)
        if owner[into] < 0 or area_m2[into] < _SLIVER_SHARE * full_m2[into]:
            heapq.heappush(heap, (area_m2[into], into))
    roots, label = np.unique([find(i) for i in range(len(faces))], return_inverse=True)
    return label.astype(np.int64), region[roots]
