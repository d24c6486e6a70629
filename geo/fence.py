"""The geo-fence: which polygon covers a point, exactly.

A boundary belongs to its polygon, so a point on a shared edge is covered twice; the first polygon in the given order
wins.  Answers agree with shapely's ``intersects`` for every point.
"""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray

from geo.raster import UNSURE, first_covering, rasterize


class Fence:
    """Polygons, ready to be asked which of them covers a point.

    Parameters
    ----------
    geometries : object array, shape (n,)
        Valid shapely Polygons or MultiPolygons in order of preference, degrees.

    Raises
    ------
    ValueError
        If a coordinate is not finite or beyond ±1e6.

    Notes
    -----
    `geo.raster` says what building costs and how much memory it may take.  The fence is immutable and may be shared
    by threads.
    """

    def __init__(self, geometries: NDArray[np.object_]) -> None:
        self._geometries = np.asarray(geometries, dtype=object)
        self._raster = rasterize(self._geometries)
        # The kernel is compiled or fetched here, not when the first report waits.
        self.first_covering([], [])

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
        found = first_covering(self._raster, lon, lat)
        # Next to a sloping border and within 2**-400 degrees of its longitude or latitude, which only happens on the
        # meridian of Greenwich or the equator: floats underflow there, and shapely is asked.
        for row in np.flatnonzero(found == UNSURE).tolist():
            covering = np.flatnonzero(shapely.intersects_xy(self._geometries, lon[row], lat[row]))
            found[row] = covering[0] if len(covering) else -1
        return found
