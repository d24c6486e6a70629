"""Datums: the known shifts of two cities, the round trip, and what happens at the edge of the box."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from geo.datum import CHINA_BOX, CRS, from_wgs84, to_wgs84
from geo.plane import distance_m

WEST, SOUTH, EAST, NORTH = CHINA_BOX

# 1.6 km: more than the largest shift of either datum.
inside = st.tuples(st.floats(WEST + 0.03, EAST - 0.03), st.floats(SOUTH + 0.02, NORTH - 0.02))
anywhere = st.tuples(st.floats(-180, 180), st.floats(-85, 85))


@pytest.mark.parametrize(
    ("city", "lon", "lat", "crs", "metres"),
    [
        ("抚州", 116.358, 27.949, "gcj02", 603),
        ("抚州", 116.358, 27.949, "bd09", 1173),
        ("阳泉", 113.580, 37.857, "gcj02", 565),
        ("阳泉", 113.580, 37.857, "bd09", 1333),
    ],
)
def test_the_shift_is_the_one_the_domain_notes_give(city, lon, lat, crs, metres):
    """Within 2 m: the notes do not say which point of the city they measured."""
    shifted = from_wgs84([lon], [lat], crs)
    assert distance_m(lon, lat, *shifted)[0] == pytest.approx(metres, abs=2)


def test_a_published_pair_of_the_shared_transcription():
    """The worked example that comes with the open implementations of the formula."""
    lon, lat = from_wgs84([116.404], [39.915], "gcj02")
    assert (lon[0], lat[0]) == (pytest.approx(116.41024449916938, abs=1e-9), pytest.approx(39.91640428150164, abs=1e-9))
    lon, lat = _bd09_of_gcj02(116.404, 39.915)
    assert (lon, lat) == (pytest.approx(116.41036949371029, abs=1e-9), pytest.approx(39.92133699351021, abs=1e-9))


def _bd09_of_gcj02(lon, lat):
    """Baidu's step alone: the GCJ-02 position's WGS-84 original, given in BD-09."""
    bd_lon, bd_lat = from_wgs84(*to_wgs84([lon], [lat], "gcj02"), "bd09")
    return bd_lon[0], bd_lat[0]


@given(inside, st.sampled_from(CRS))
@example((105.0, 35.0), "gcj02")  # the formula's square root has a corner here
@example((105.0 + 1e-13, 27.0), "bd09")
@example((116.404, 39.915), "bd09")
def test_there_and_back_is_less_than_a_tenth_of_a_millimetre(point, crs):
    lon, lat = point
    back = to_wgs84(*from_wgs84([lon], [lat], crs), crs)
    assert distance_m(lon, lat, *back)[0] < 1e-4


@given(inside, st.sampled_from(["gcj02", "bd09"]))
def test_back_and_there_too(point, crs):
    lon, lat = point
    again = from_wgs84(*to_wgs84([lon], [lat], crs), crs)
    assert distance_m(lon, lat, *again)[0] < 1e-4


@given(anywhere)
def test_outside_the_box_gcj02_is_wgs84(point):
    lon, lat = point
    if WEST - 0.02 < lon < EAST + 0.02 and SOUTH - 0.02 < lat < NORTH + 0.02:
        return
    for convert in (from_wgs84, to_wgs84):
        x, y = convert([lon], [lat], "gcj02")
        assert (x[0], y[0]) == (lon, lat)


@given(
    st.one_of(
        st.tuples(st.sampled_from([WEST, EAST]), st.floats(SOUTH, NORTH)),
        st.tuples(st.floats(WEST, EAST), st.sampled_from([SOUTH, NORTH])),
    ),
    st.floats(-0.01, 0.01),
    st.floats(-0.01, 0.01),
)
def test_at_the_edge_the_answer_is_an_original_if_there_is_one(point, d_lon, d_lat):
    """The forward shift jumps there; what comes back must shift to what was given, or be its smooth continuation."""
    lon, lat = point[0] + d_lon, point[1] + d_lat
    x, y = to_wgs84([lon], [lat], "gcj02")
    again = from_wgs84(x, y, "gcj02")
    is_inside = WEST <= x[0] <= EAST and SOUTH <= y[0] <= NORTH
    given_inside = WEST <= lon <= EAST and SOUTH <= lat <= NORTH
    if is_inside or not given_inside:
        assert distance_m(lon, lat, *again)[0] < 1e-4
    else:
        assert distance_m(lon, lat, x, y)[0] < 1000


@pytest.mark.parametrize("crs", ["wgs84", "cgcs2000"])
def test_the_two_world_datums_are_one(crs):
    lon, lat = to_wgs84([116.0, -71.0], [27.0, 42.0], crs)
    assert lon.tolist() == [116.0, -71.0]
    assert lat.tolist() == [27.0, 42.0]


@pytest.mark.parametrize("crs", CRS)
def test_a_point_does_not_depend_on_its_batch(crs):
    """Two batch sizes must give identical bytes."""
    rng = np.random.default_rng(7)
    lon, lat = rng.uniform(73, 135, 257), rng.uniform(4, 53, 257)
    together = to_wgs84(lon, lat, crs)
    for i in range(0, 257, 16):
        alone = to_wgs84(lon[i : i + 1], lat[i : i + 1], crs)
        assert (alone[0][0], alone[1][0]) == (together[0][i], together[1][i])


@pytest.mark.parametrize("crs", CRS)
def test_nan_stays_nan_and_says_nothing(crs):
    lon, lat = to_wgs84([np.nan, 116.0], [27.0, 27.0], crs)
    assert np.isnan(lon[0]) or lat[0] == 27.0
    assert np.isfinite(lon[1])


def test_an_unknown_datum_is_named():
    with pytest.raises(ValueError, match="'wgs-84' is not one of wgs84, cgcs2000, gcj02, bd09"):
        to_wgs84([0.0], [0.0], "wgs-84")
    with pytest.raises(ValueError, match="shape"):
        to_wgs84([0.0, 1.0], [0.0], "wgs84")
