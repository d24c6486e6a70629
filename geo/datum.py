"""Datums: from what map services and devices hand out to WGS-84 and back.

``wgs84`` and ``cgcs2000`` are taken as one (they differ by less than a metre).  ``gcj02`` is the shifted datum that
Chinese map services hand out, ``bd09`` Baidu's second shift on top of it.  Neither is small: at 抚州 603 m
and 1,173 m, at 阳泉 565 m and 1,333 m, several grid cells each.

The forward formulas are the public transcription that every open implementation shares; there is no official text.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

CRS = ("wgs84", "cgcs2000", "gcj02", "bd09")
"""Every datum that a message, a device or a place may declare."""

CHINA_BOX = (72.004, 0.8293, 137.8347, 55.8271)
"""West, south, east, north, degrees WGS-84, edges included: outside this box GCJ-02 is WGS-84."""

_Array = NDArray[np.float64]

# The Krasovsky 1940 ellipsoid, which the published formula uses although both ends of it are WGS-84.
_KRASOVSKY_A_M = 6378245.0
_KRASOVSKY_E2 = 0.00669342162296594323
_BAIDU_RATE = np.pi * 3000.0 / 180.0

# Each round multiplies the error by at most 0.003 (GCJ-02) or 0.025 (Baidu's angle term), so these take a kilometre
# below the rounding of a float64 degree.  A fixed number, not "until it settles": the answer for a point must not
# depend on which other points share its batch.
_GCJ02_ROUNDS = 6
_BD09_ROUNDS = 9


def _gcj02_shift(lon_deg: _Array, lat_deg: _Array) -> tuple[_Array, _Array]:
    """How far GCJ-02 moves a WGS-84 position, degrees; smooth, without regard to the box."""
    x, y = lon_deg - 105.0, lat_deg - 35.0
    root = np.sqrt(np.abs(x))
    ripple = (20.0 * np.sin(6.0 * np.pi * x) + 20.0 * np.sin(2.0 * np.pi * x)) * (2.0 / 3.0)
    north = -100.0 + 2.0 * x + 3.0 * y + 0.2 * y * y + 0.1 * x * y + 0.2 * root + ripple
    north += (20.0 * np.sin(np.pi * y) + 40.0 * np.sin(np.pi / 3.0 * y)) * (2.0 / 3.0)
    north += (160.0 * np.sin(np.pi / 12.0 * y) + 320.0 * np.sin(np.pi / 30.0 * y)) * (2.0 / 3.0)
    east = 300.0 + x + 2.0 * y + 0.1 * x * x + 0.1 * x * y + 0.1 * root + ripple
    east += (20.0 * np.sin(np.pi * x) + 40.0 * np.sin(np.pi / 3.0 * x)) * (2.0 / 3.0)
    east += (150.0 * np.sin(np.pi / 12.0 * x) + 300.0 * np.sin(np.pi / 30.0 * x)) * (2.0 / 3.0)
    phi = np.radians(lat_deg)
    w2 = 1.0 - _KRASOVSKY_E2 * np.sin(phi) ** 2
    w = np.sqrt(w2)
    d_lat = north * 180.0 * w2 * w / (_KRASOVSKY_A_M * (1.0 - _KRASOVSKY_E2) * np.pi)
    d_lon = east * 180.0 * w / (_KRASOVSKY_A_M * np.cos(phi) * np.pi)
    return d_lon, d_lat


def _bd09_shift(lon_deg: _Array, lat_deg: _Array) -> tuple[_Array, _Array]:
    """How far BD-09 moves a GCJ-02 position, degrees."""
    z = np.hypot(lon_deg, lat_deg) + 0.00002 * np.sin(lat_deg * _BAIDU_RATE)
    theta = np.arctan2(lat_deg, lon_deg) + 0.000003 * np.cos(lon_deg * _BAIDU_RATE)
    return z * np.cos(theta) + 0.0065 - lon_deg, z * np.sin(theta) + 0.006 - lat_deg


def _in_china_box(lon_deg: _Array, lat_deg: _Array) -> NDArray[np.bool_]:
    west, south, east, north = CHINA_BOX
    inside: NDArray[np.bool_] = (lon_deg >= west) & (lon_deg <= east) & (lat_deg >= south) & (lat_deg <= north)
    return inside


def _unshift(
    shift: Callable[[_Array, _Array], tuple[_Array, _Array]], lon_deg: _Array, lat_deg: _Array, rounds: int
) -> tuple[_Array, _Array]:
    """Solve ``p + shift(p) = q`` for p by fixed-point iteration."""
    lon, lat = lon_deg, lat_deg
    for _ in range(rounds):
        d_lon, d_lat = shift(lon, lat)
        lon, lat = lon_deg - d_lon, lat_deg - d_lat
    return lon, lat


def _checked(lon_deg: ArrayLike, lat_deg: ArrayLike, crs: str) -> tuple[_Array, _Array]:
    if crs not in CRS:
        raise ValueError(f"crs {crs!r} is not one of {', '.join(CRS)}")
    lon = np.asarray(lon_deg, dtype=np.float64)
    lat = np.asarray(lat_deg, dtype=np.float64)
    if lon.shape != lat.shape:
        raise ValueError(f"lon_deg has shape {lon.shape}, lat_deg {lat.shape}: they must agree")
    return lon, lat


def from_wgs84(lon_deg: ArrayLike, lat_deg: ArrayLike, crs: str) -> tuple[_Array, _Array]:
    """Give WGS-84 positions as another datum has them.

    Parameters
    ----------
    lon_deg, lat_deg : float64 array_like, any one shape
        Degrees, WGS-84.  NaN stays NaN.
    crs : str
        One of `CRS`.

    Returns
    -------
    (lon_deg, lat_deg) : float64 arrays of the same shape

    Raises
    ------
    ValueError
        If ``crs`` is not one of `CRS` or the shapes differ.

    Notes
    -----
    GCJ-02 shifts only inside `CHINA_BOX` and therefore jumps by some hundred metres at its edge.  Baidu's own shift
    (about 0.0065° and 0.006°) applies everywhere, as in every published implementation.

    >>> lon, lat = from_wgs84([116.358], [27.949], "gcj02")
    >>> round(float(lon[0]), 5), round(float(lat[0]), 5)
    (116.36304, 27.9457)
    """
    lon, lat = _checked(lon_deg, lat_deg, crs)
    if crs in ("gcj02", "bd09"):
        # Far outside the box the formula is not meant to be evaluated (cos of a pole); the result is not used there.
        inside = _in_china_box(lon, lat)
        d_lon, d_lat = _gcj02_shift(np.where(inside, lon, 105.5), np.where(inside, lat, 35.0))
        lon = np.where(inside, lon + d_lon, lon)
        lat = np.where(inside, lat + d_lat, lat)
    if crs == "bd09":
        d_lon, d_lat = _bd09_shift(lon, lat)
        lon, lat = lon + d_lon, lat + d_lat
    return lon, lat


def to_wgs84(lon_deg: ArrayLike, lat_deg: ArrayLike, crs: str) -> tuple[_Array, _Array]:
    """Bring positions of any datum to WGS-84; the inverse of `from_wgs84` to far better than a millimetre.

    Parameters
    ----------
    lon_deg, lat_deg : float64 array_like, any one shape
        Degrees in the datum ``crs``.  NaN stays NaN.
    crs : str
        One of `CRS`.

    Returns
    -------
    (lon_deg, lat_deg) : float64 arrays of the same shape
        WGS-84.

    Raises
    ------
    ValueError
        If ``crs`` is not one of `CRS` or the shapes differ.

    Notes
    -----
    At the edge of `CHINA_BOX` the forward shift jumps, so within one shift of the edge (under 1.5 km) some shifted
    positions have two originals and some have none.  Where an original inside the box exists it is the answer; where
    only the unshifted one exists (outside) that is; where none exists the shift is continued smoothly.  So every
    position further inside than 1.5 km makes the round trip, and outside nothing further away than that moves.
    """
    lon, lat = _checked(lon_deg, lat_deg, crs)
    if crs == "bd09":
        lon, lat = _unshift(_bd09_shift, lon, lat, _BD09_ROUNDS)
    if crs in ("gcj02", "bd09"):
        west, south, east, north = CHINA_BOX
        near = (lon > west - 1) & (lon < east + 1) & (lat > south - 1) & (lat < north + 1)
        old_lon, old_lat = _unshift(_gcj02_shift, np.where(near, lon, 105.5), np.where(near, lat, 35.0), _GCJ02_ROUNDS)
        shifted = near & (_in_china_box(old_lon, old_lat) | _in_china_box(lon, lat))
        lon = np.where(shifted, old_lon, lon)
        lat = np.where(shifted, old_lat, lat)
    return lon, lat
