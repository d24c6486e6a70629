"""The geo-fence: which polygon covers a point, exactly.

A boundary belongs to its polygon, so a point on a shared edge is covered twice; the first polygon in the given order
wins.  Answers agree with shapely's ``intersects`` for every point, because they come from it.
"""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray

# Points become Python objects for the tree; a chunk bounds what they take (about 100 bytes a point).
_CHUNK = 65_536


class Fence:
    """Polygons, ready to be asked which of them covers a point.

    Parameters
    ----------
    geometries : object array, shape (n,)
        Valid shapely Polygons or MultiPolygons in order of preference.

    Notes
    -----
    Building costs O(n log n).  The fence is immutable and may be shared by threads.
    """

    def __init__(self, geometries: NDArray[np.object_]) -> None:
        self._geometries = np.asarray(geometries, dtype=object)
        # Prepared polygons answer a point in O(log vertices); a plain one walks its whole outline.
        shapely.prepare(self._geometries)
        self._tree = shapely.STRtree(self._geometries)
        # Both build their indices at the first question and release the interpreter's lock while they do; asked here
        # once, they are complete before a second thread can ask.
        if len(self._geometries):
            inner = shapely.point_on_surface(self._geometries)
            shapely.intersects_xy(self._geometries, shapely.get_x(inner), shapely.get_y(inner))
            self._tree.query(inner[0])

    def __len__(self) -> int:
        return len(self._geometries)

    def first_covering(self, lon_deg: ArrayLike, lat_deg: ArrayLike) -> NDArray[np.int32]:
        """Find the first polygon that covers each point.

        Parameters
        ----------
        lon_deg, lat_deg : float64 array_like, shape (n,)
            Degrees, in the polygons' datum.  A position that is not finite lies nowhere.

        Returns
        -------
        int32 array, shape (n,)
            Smallest index of a polygon whose interior or boundary holds the point, or -1.
        """
        lon = np.asarray(lon_deg, dtype=np.float64)
        lat = np.asarray(lat_deg, dtype=np.float64)
        if lon.ndim != 1 or lon.shape != lat.shape:
            raise ValueError(f"lon_deg has shape {lon.shape}, lat_deg {lat.shape}: both must be (n,)")
        found = np.full(len(lon), -1, dtype=np.int32)
        if not len(self._geometries):
            return found
        rows = np.flatnonzero(np.isfinite(lon) & np.isfinite(lat))
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            x, y = lon[part], lat[part]
            point, polygon = self._tree.query(shapely.points(x, y))
            hit = shapely.intersects_xy(self._geometries[polygon], x[point], y[point])
            first = np.full(len(part), len(self._geometries), dtype=np.int64)
            np.minimum.at(first, point[hit], polygon[hit])
            found[part] = np.where(first < len(self._geometries), first, -1)
        return found
