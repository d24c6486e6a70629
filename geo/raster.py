"""Which polygon covers a point, by pixels: most points cost one look-up, those near a border a few exact comparisons.

The polygons' extent is divided into pixels.  One that lies wholly inside a polygon answers at once; one that a border
touches has a short list of candidates, and each is asked exactly: the point's ray to the east crosses its border an odd
number of times, or the point lies on it.  On which side of an edge a point lies is decided in floats where their error
cannot matter, else by expansions (sums of floats that are exact), so no point near a border is ever guessed.

Bounds, whatever the polygons are like: `MAX_PIXELS` pixels and `MAX_TOUCHES` candidates (or 9 a polygon, if that is
more), 4 bytes each, the pixels twice while building.  Where polygons would exceed them, or lie so far apart that most
pixels were empty, pixels are larger and lists longer; the answers are the same.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
import shapely
from numpy.typing import NDArray

MAX_PIXELS = 2**24
MAX_TOUCHES = 2**25
"""At most this many pixels lie in the polygons' bounding boxes, each box counted; lists and building time follow it."""

NOWHERE, UNSURE = -1, -2
"""Answers that are no polygon; `UNSURE`: the sums would leave the range in which floats are exact."""

_MAX_SIDE = 2**20
# A street block has four to ten edges, so 100 to 240 pixels a cell; at 50,000 cells twice as many are hardly quicker,
# for they no longer fit the processor's caches.
_PIXELS_AN_EDGE = 24
# Polygons that lie scattered may have this many times the pixels of such that lie side by side.
_SPREAD = 8
_FEW_PIXELS = 1024
# A tenth of a millimetre: finer pixels tell nothing apart, and smaller numbers would vanish in the coordinates.
_LEAST_PIXEL_DEG = 1e-9
# How far beside a pixel, in pixels, a border still counts as touching it.  A position's place in the lattice errs by
# less than 2**-30 (sides are at most 2**20 long), so no border passes unseen through a pixel that is taken for whole.
_SLACK = 1e-6
_MAX_COORDINATE = 1e6
# Edges that are skipped together where the ray cannot meet their box.
_BLOCK = 16

# Shewchuk's bound for an orientation in doubles, (3 + 16 u) u with u = 2**-53; it holds where nothing underflows.
_ORIENTATION_ERROR = 3.3306690738754716e-16
_LEAST_PRODUCT = 1e-250
# Expansions of products are exact if no factor is smaller (2**-400: its products' tails are above 2**-1010) or larger.
_LEAST_FACTOR, _MOST_FACTOR = 2.0**-400, 2.0**400

_OUTSIDE, _INSIDE, _BORDER = 0, 1, 2

F = TypeVar("F")


def _jit(function: F) -> F:
    # No fastmath: reassociated or fused sums are not exact, and no expansion would be.
    compiled: Any = numba.njit(cache=True, nogil=True, error_model="numpy")
    return cast(F, compiled(function))


class Outlines(NamedTuple):
    """The borders of n polygons as one list of edges, in the polygons' order, outer rings and holes alike."""

    edge: NDArray[np.float64]
    """(edges, 4) from x, y to x, y."""
    first_edge: NDArray[np.int64]
    """(n + 1,) where each polygon's edges begin."""
    first_block: NDArray[np.int64]
    """(n + 1,) where each polygon's blocks of `_BLOCK` edges begin."""
    block: NDArray[np.float64]
    """(blocks, 3) of each block the lowest y, the highest y, the highest x."""


class Lattice(NamedTuple):
    """The pixels: x is in column ``int((x - west) * columns_a_deg)``, counted from 0."""

    west: float
    south: float
    columns_a_deg: float
    rows_a_deg: float
    columns: int
    rows: int


class Raster(NamedTuple):
    """Polygons, ready to be asked; immutable."""

    outlines: Outlines
    lattice: Lattice
    answer: NDArray[np.int32]
    """(rows * columns,) the polygon that covers the whole pixel, `NOWHERE`, or -2 - the number of its list."""
    first_candidate: NDArray[np.int64]
    """(lists + 1,) where each list begins."""
    candidate: NDArray[np.int32]
    """Polygon * 2, ascending; + 1 if its border touches the pixel, else it covers it and ends the list."""


# -------------------------------------------------------------------------------------------------------- building


def rasterize(geometries: NDArray[np.object_]) -> Raster:
    """Lay polygons out in pixels.

    Parameters
    ----------
    geometries : object array, shape (n,)
        Valid shapely Polygons or MultiPolygons, degrees, in order of preference.  Empty ones cover nothing.

    Returns
    -------
    Raster
        Built in O(edges + pixels) with the module's bounds: half a second and 50 MB for 50,000 street blocks.

    Raises
    ------
    ValueError
        If a coordinate is not finite or beyond ±1e6.
    """
    outlines = _outlines_of(geometries)
    if not len(outlines.edge):
        nothing = np.empty(0, dtype=np.int32)
        return Raster(outlines, Lattice(0.0, 0.0, 1.0, 1.0, 0, 0), nothing, np.zeros(1, dtype=np.int64), nothing)
    lattice = _lattice_for(geometries, len(outlines.edge))
    touches = np.zeros(lattice.rows * lattice.columns, dtype=np.int32)
    _count(outlines, lattice, touches)
    # All but the pixels that nothing touches and those that one polygon covers and no earlier one touches.
    listed = (touches != 0) & (touches != -1)
    answer = np.full(len(touches), NOWHERE, dtype=np.int32)
    answer[listed] = -2 - np.arange(np.count_nonzero(listed), dtype=np.int32)
    first_candidate = np.concatenate([[0], np.cumsum(np.abs(touches[listed]), dtype=np.int64)])
    del touches
    candidate = np.empty(first_candidate[-1], dtype=np.int32)
    _fill(outlines, lattice, answer, first_candidate, candidate)
    return Raster(outlines, lattice, answer, first_candidate, candidate)


def _outlines_of(geometries: NDArray[np.object_]) -> Outlines:
    parts, polygon_of_part = shapely.get_parts(geometries, return_index=True)
    rings, part_of_ring = shapely.get_rings(parts, return_index=True)
    points, ring_of_point = shapely.get_coordinates(rings, return_index=True)
    if not (np.abs(points) <= _MAX_COORDINATE).all():
        raise ValueError(f"a polygon has a coordinate that is not finite or beyond ±{_MAX_COORDINATE:g}")
    start = np.flatnonzero(ring_of_point[1:] == ring_of_point[:-1])
    edge = np.concatenate([points[start], points[start + 1]], axis=1)
    polygon = polygon_of_part[part_of_ring[ring_of_point[start]]]
    first_edge = np.searchsorted(polygon, np.arange(len(geometries) + 1)).astype(np.int64)
    blocks = -(np.diff(first_edge) // -_BLOCK)
    first_block = np.concatenate([[0], np.cumsum(blocks)])
    block = np.empty((first_block[-1], 3))
    if len(edge):
        of_block = np.arange(first_block[-1]) - np.repeat(first_block[:-1], blocks)
        begin = np.repeat(first_edge[:-1], blocks) + of_block * _BLOCK
        block[:, 0] = np.minimum.reduceat(np.minimum(edge[:, 1], edge[:, 3]), begin)
        block[:, 1] = np.maximum.reduceat(np.maximum(edge[:, 1], edge[:, 3]), begin)
        block[:, 2] = np.maximum.reduceat(np.maximum(edge[:, 0], edge[:, 2]), begin)
    return Outlines(edge, first_edge, first_block, block)


def _lattice_for(geometries: NDArray[np.object_], edges: int) -> Lattice:
    """Pixels of the shape of the middling polygon's box, as small as the bounds allow."""
    box = shapely.bounds(geometries)
    box = box[~np.isnan(box[:, 0])]
    west, south = box[:, 0].min(), box[:, 1].min()
    finest = np.sqrt(len(box) / (_PIXELS_AN_EDGE * edges))
    width = max(float(np.median(box[:, 2] - box[:, 0])) * finest, _LEAST_PIXEL_DEG)
    height = max(float(np.median(box[:, 3] - box[:, 1])) * finest, _LEAST_PIXEL_DEG)
    most = min(MAX_PIXELS, _SPREAD * _PIXELS_AN_EDGE * edges + _FEW_PIXELS)
    while True:
        lattice = Lattice(float(west), float(south), 1 / width, 1 / height, 0, 0)
        left, right = ((_place(box[:, x], west, lattice.columns_a_deg)) for x in (0, 2))
        low, high = ((_place(box[:, y], south, lattice.rows_a_deg)) for y in (1, 3))
        columns, rows = int(right.max()) + 1, int(high.max()) + 1
        # Two more each way for what lies within the slack.
        touches = float(((right - left + 3) * (high - low + 3)).sum())
        if max(columns, rows) <= _MAX_SIDE and columns * rows <= most and touches <= max(MAX_TOUCHES, 9 * len(box)):
            return lattice._replace(columns=columns, rows=rows)
        width, height = width * np.sqrt(2), height * np.sqrt(2)


def _place(x: NDArray[np.float64], origin: float, per_deg: float) -> NDArray[np.float64]:
    """Column or row, by the very operations of `_find`: rounding must put a point and its box's side together."""
    return np.floor((x - origin) * per_deg)


@_jit
def _count(outlines: Outlines, lattice: Lattice, touches: NDArray[np.int32]) -> None:
    """Count the polygons that touch each pixel, up to the first that covers it; its count is then negative."""
    mask = np.zeros(1024, np.uint8)
    for polygon in range(len(outlines.first_edge) - 1):
        mask, left, low, width, height = _mark(outlines, lattice, polygon, mask)
        for k in range(width * height):
            pixel = (low + k // width) * lattice.columns + left + k % width
            if mask[k] != _OUTSIDE and touches[pixel] >= 0:
                touches[pixel] += 1
                if mask[k] == _INSIDE:
                    touches[pixel] = -touches[pixel]


@_jit
def _fill(
    outlines: Outlines,
    lattice: Lattice,
    answer: NDArray[np.int32],
    first_candidate: NDArray[np.int64],
    candidate: NDArray[np.int32],
) -> None:
    """Write the lists whose lengths are known, and the answers of pixels without one."""
    free = first_candidate[:-1].copy()
    mask = np.zeros(1024, np.uint8)
    for polygon in range(len(outlines.first_edge) - 1):
        mask, left, low, width, height = _mark(outlines, lattice, polygon, mask)
        for k in range(width * height):
            if mask[k] == _OUTSIDE:
                continue
            pixel = (low + k // width) * lattice.columns + left + k % width
            if answer[pixel] == NOWHERE:
                answer[pixel] = polygon
            elif answer[pixel] < NOWHERE:
                at = -2 - answer[pixel]
                if free[at] < first_candidate[at + 1]:
                    candidate[free[at]] = 2 * polygon + (mask[k] == _BORDER)
                    free[at] += 1


@_jit
def _box_of(outlines: Outlines, lattice: Lattice, polygon: int) -> tuple[int, int, int, int]:
    """Leftmost column, lowest row, and how many of each the polygon may touch; 0 of an empty one."""
    left, low, right, high = lattice.columns, lattice.rows, -1, -1
    for k in range(outlines.first_edge[polygon], outlines.first_edge[polygon + 1]):
        column = (outlines.edge[k, 0] - lattice.west) * lattice.columns_a_deg
        row = (outlines.edge[k, 1] - lattice.south) * lattice.rows_a_deg
        left, right = min(left, int(column - _SLACK)), max(right, int(column + _SLACK))
        low, high = min(low, int(row - _SLACK)), max(high, int(row + _SLACK))
    right, high = min(right, lattice.columns - 1), min(high, lattice.rows - 1)
    return left, low, max(0, right - left + 1), max(0, high - low + 1)


@_jit
def _mark(
    outlines: Outlines, lattice: Lattice, polygon: int, mask: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], int, int, int, int]:
    """Say of each pixel of a polygon's box, row by row, whether it is outside, inside or touched by the border.

    Returns the mask, grown if need be, and the box: leftmost column, lowest row, width and height.
    """
    left, low, width, height = _box_of(outlines, lattice, polygon)
    if len(mask) < width * height:
        mask = np.zeros(2 * width * height, np.uint8)
    mask[: width * height] = _OUTSIDE
    for k in range(outlines.first_edge[polygon], outlines.first_edge[polygon + 1]):
        ax = (outlines.edge[k, 0] - lattice.west) * lattice.columns_a_deg - left
        ay = (outlines.edge[k, 1] - lattice.south) * lattice.rows_a_deg - low
        bx = (outlines.edge[k, 2] - lattice.west) * lattice.columns_a_deg - left
        by = (outlines.edge[k, 3] - lattice.south) * lattice.rows_a_deg - low
        if ay > by:
            ax, ay, bx, by = bx, by, ax, ay
        for row in range(max(0, int(ay - _SLACK)), min(height - 1, int(by + _SLACK)) + 1):
            # The part of the edge within the row, a little more at either end; all of a flat one.
            start, end = 0.0, 1.0
            if by - ay > _SLACK:
                start = min(1.0, max(0.0, (row - _SLACK - ay) / (by - ay)))
                end = min(1.0, max(0.0, (row + 1 + _SLACK - ay) / (by - ay)))
            one, other = ax + (bx - ax) * start, ax + (bx - ax) * end
            first = max(0, int(min(one, other) - _SLACK))
            last = min(width - 1, int(max(one, other) + _SLACK))
            for column in range(first, last + 1):
                mask[row * width + column] = _BORDER
    for row in range(height):
        y = lattice.south + (low + row + 0.5) / lattice.rows_a_deg
        # Pixels side by side without a border between them are on the same side of it.
        side = UNSURE
        for column in range(width):
            if mask[row * width + column] == _BORDER:
                side = UNSURE
                continue
            if side == UNSURE:
                x = lattice.west + (left + column + 0.5) / lattice.columns_a_deg
                side = _covers(outlines, polygon, x, y)
            if side == UNSURE:
                mask[row * width + column] = _BORDER
            elif side == 1:
                mask[row * width + column] = _INSIDE
    return mask, left, low, width, height


# ---------------------------------------------------------------------------------------------------------- asking


def first_covering(raster: Raster, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.int32]:
    """Find the first polygon that covers each point.

    Parameters
    ----------
    raster : Raster
    x, y : float64 arrays, shape (n,)
        Any numbers, infinities and NaN too.

    Returns
    -------
    int32 array, shape (n,)
        Smallest index of a polygon whose interior or border holds the point; `NOWHERE`; or, for a point next to a
        border whose coordinates differ from the border's by less than 2**-400, `UNSURE`.
    """
    found = np.empty(len(x), dtype=np.int32)
    _find(raster, np.ascontiguousarray(x), np.ascontiguousarray(y), found)
    return found


@_jit
def _find(raster: Raster, x: NDArray[np.float64], y: NDArray[np.float64], found: NDArray[np.int32]) -> None:
    lattice = raster.lattice
    for i in range(len(x)):
        column = (x[i] - lattice.west) * lattice.columns_a_deg
        row = (y[i] - lattice.south) * lattice.rows_a_deg
        # Written so that NaN fails it.
        if not (column >= 0 and row >= 0 and column < lattice.columns and row < lattice.rows):
            found[i] = NOWHERE
            continue
        answer = raster.answer[int(row) * lattice.columns + int(column)]
        if answer < NOWHERE:
            at = -2 - answer
            answer = NOWHERE
            for k in range(raster.first_candidate[at], raster.first_candidate[at + 1]):
                polygon = raster.candidate[k] >> 1
                side = 1
                if raster.candidate[k] & 1:
                    side = _covers(raster.outlines, polygon, x[i], y[i])
                if side != 0:
                    answer = polygon if side == 1 else UNSURE
                    break
        found[i] = answer


@_jit
def _covers(outlines: Outlines, polygon: int, x: float, y: float) -> int:
    """1 if a polygon or its border holds a point, 0 if not, or `UNSURE`."""
    inside = 0
    for block in range(outlines.first_block[polygon], outlines.first_block[polygon + 1]):
        if y < outlines.block[block, 0] or y > outlines.block[block, 1] or x > outlines.block[block, 2]:
            continue
        start = outlines.first_edge[polygon] + (block - outlines.first_block[polygon]) * _BLOCK
        for k in range(start, min(start + _BLOCK, outlines.first_edge[polygon + 1])):
            ax, ay, bx, by = outlines.edge[k, 0], outlines.edge[k, 1], outlines.edge[k, 2], outlines.edge[k, 3]
            if (ay > y) != (by > y):
                # The ray's line meets the edge (its upper end left out, so that a vertex is met once).
                if ax < x and bx < x:
                    continue
                if ax > x and bx > x:
                    inside ^= 1
                    continue
                side = 0 if ax == bx else _orientation(ax, ay, bx, by, x, y)
                if side == 0:
                    return 1
                if side == UNSURE:
                    return UNSURE
                if (side > 0) == (by > ay):
                    inside ^= 1
            elif (ax == x and ay == y) or (ay == y and by == y and min(ax, bx) <= x <= max(ax, bx)):
                # A vertex (each begins one edge) or a level edge.
                return 1
    return inside


@_jit
def _orientation(ax: float, ay: float, bx: float, by: float, x: float, y: float) -> int:
    """1 if the point lies to the left of the way from a to b, -1 to the right, 0 exactly on its line, or `UNSURE`."""
    left, right = (ax - x) * (by - y), (ay - y) * (bx - x)
    size = abs(left) + abs(right)
    if size > _LEAST_PRODUCT and abs(left - right) > _ORIENTATION_ERROR * size:
        return 1 if left > right else -1
    # a - p and b - p, each exactly the sum of two floats; the determinant is then a sum of 16 floats.
    part = np.empty((4, 2))
    part[0] = _difference(ax, x)
    part[1] = _difference(by, y)
    part[2] = _difference(ay, y)
    part[3] = _difference(bx, x)
    for factor in part.flat:
        if factor != 0 and not _LEAST_FACTOR <= abs(factor) <= _MOST_FACTOR:
            return UNSURE
    total = np.zeros(16)
    used = 0
    for i in range(2):
        for j in range(2):
            for pair, sign in ((0, 1.0), (2, -1.0)):
                high, low = _product(sign * part[pair, i], part[pair + 1, j])
                used = _add(total, used, low)
                used = _add(total, used, high)
    # The parts do not overlap and grow, so the last that is not zero has the sign of all.
    for k in range(used - 1, -1, -1):
        if total[k] != 0:
            return 1 if total[k] > 0 else -1
    return 0


@_jit
def _sum(a: float, b: float) -> tuple[float, float]:
    """a + b as the nearest float and what it lacks, exactly (Knuth)."""
    near = a + b
    other = near - a
    return near, (a - (near - other)) + (b - other)


@_jit
def _difference(a: float, b: float) -> tuple[float, float]:
    return _sum(a, -b)


@_jit
def _product(a: float, b: float) -> tuple[float, float]:
    """a * b as the nearest float and what it lacks, exactly (Dekker, by halves of 26 bits)."""
    near = a * b
    wide = 134217729.0 * a
    a_high = wide - (wide - a)
    a_low = a - a_high
    wide = 134217729.0 * b
    b_high = wide - (wide - b)
    b_low = b - b_high
    return near, a_low * b_low - (((near - a_high * b_high) - a_low * b_high) - a_high * b_low)


@_jit
def _add(total: NDArray[np.float64], used: int, term: float) -> int:
    """Add a term to an expansion of `used` parts (Shewchuk's Grow-Expansion); its new length."""
    for k in range(used):
        term, total[k] = _sum(term, total[k])
    total[used] = term
    return used + 1
