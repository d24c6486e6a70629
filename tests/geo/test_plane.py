"""Metres at city scale against Vincenty's geodesic, which shares no formula with them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from geo.plane import distance_m, metres_per_degree

A, F = 6378137.0, 1 / 298.257223563
B = A * (1 - F)


def vincenty_m(lon1, lat1, lon2, lat2):
    """T. Vincenty, Survey Review 23 (1975), inverse formula; good to half a millimetre."""
    u1, u2 = (math.atan((1 - F) * math.tan(math.radians(lat))) for lat in (lat1, lat2))
    difference = math.radians(lon2 - lon1)
    lam = difference
    for _ in range(200):
        x = math.cos(u2) * math.sin(lam)
        y = math.cos(u1) * math.sin(u2) - math.sin(u1) * math.cos(u2) * math.cos(lam)
        sin_sigma = math.hypot(x, y)
        if sin_sigma == 0:
            return 0.0
        cos_sigma = math.sin(u1) * math.sin(u2) + math.cos(u1) * math.cos(u2) * math.cos(lam)
        sigma = math.atan2(sin_sigma, cos_sigma)
        sin_alpha = math.cos(u1) * math.cos(u2) * math.sin(lam) / sin_sigma
        cos2_alpha = 1 - sin_alpha**2
        cos_2m = cos_sigma - 2 * math.sin(u1) * math.sin(u2) / cos2_alpha if cos2_alpha else 0.0
        c = F / 16 * cos2_alpha * (4 + F * (4 - 3 * cos2_alpha))
        before = lam
        lam = difference + (1 - c) * F * sin_alpha * (
            sigma + c * sin_sigma * (cos_2m + c * cos_sigma * (2 * cos_2m**2 - 1))
        )
        if abs(lam - before) < 1e-13:
            break
    v2 = cos2_alpha * (A**2 - B**2) / B**2
    big_a = 1 + v2 / 16384 * (4096 + v2 * (-768 + v2 * (320 - 175 * v2)))
    big_b = v2 / 1024 * (256 + v2 * (-128 + v2 * (74 - 47 * v2)))
    delta = (
        big_b
        * sin_sigma
        * (
            cos_2m
            + big_b
            / 4
            * (cos_sigma * (2 * cos_2m**2 - 1) - big_b / 6 * cos_2m * (4 * sin_sigma**2 - 3) * (4 * cos_2m**2 - 3))
        )
    )
    return B * big_a * (sigma - delta)


def test_the_oracle_itself_gives_a_published_distance():
    """Flinders Peak to Buninyong, Geoscience Australia's worked example (GRS80): 54,972.271 m."""
    lon1, lat1 = 144 + 25 / 60 + 29.52440 / 3600, -(37 + 57 / 60 + 3.72030 / 3600)
    lon2, lat2 = 143 + 55 / 60 + 35.38390 / 3600, -(37 + 39 / 60 + 10.15610 / 3600)
    assert vincenty_m(lon1, lat1, lon2, lat2) == pytest.approx(54972.271, abs=1e-3)


@given(st.floats(-180, 180), st.floats(-65, 65), st.floats(-25_000, 25_000), st.floats(-25_000, 25_000))
@example(116.4, 27.9, 100.0, 0.0)
@example(-71.06, 42.36, 0.0, 100.0)
@example(113.58, 37.857, 0.3, -0.2)
def test_a_distance_inside_a_city_is_the_geodesic_to_a_hundred_thousandth(lon, lat, east_m, north_m):
    lon2, lat2 = lon + east_m / (111_320 * math.cos(math.radians(lat))), lat + north_m / 110_574
    assert distance_m(lon, lat, lon2, lat2) == pytest.approx(vincenty_m(lon, lat, lon2, lat2), rel=1e-5, abs=1e-3)


@given(st.floats(-89, 89))
@example(0.0)
def test_a_degree_is_as_long_as_the_geodesic_says(lat):
    m_lon, m_lat = metres_per_degree(lat)
    h = 1e-4
    assert m_lon == pytest.approx(vincenty_m(0, lat, h, lat) / h, rel=1e-6)
    assert m_lat == pytest.approx(vincenty_m(0, lat - h / 2, 0, lat + h / 2) / h, rel=1e-6)


def test_one_side_of_the_antimeridian_is_near_the_other():
    assert distance_m(179.9995, -17.0, -179.9995, -17.0) == pytest.approx(106.5, abs=0.5)


def test_shapes_broadcast():
    lon, lat = np.zeros((3, 1)), np.zeros((3, 1))
    assert distance_m(lon, lat, np.arange(4.0), np.zeros(4)).shape == (3, 4)
    m_lon, m_lat = metres_per_degree(np.zeros((2, 2)))
    assert m_lon.shape == m_lat.shape == (2, 2)
