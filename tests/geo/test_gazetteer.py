"""The gazetteer: what names mean beside one another, example by example and against the rules written out."""

from __future__ import annotations

import doctest
import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
import shapely
from hypothesis import example, given
from hypothesis import strategies as st

from geo import gazetteer
from geo.gazetteer import LOOKED_AT, MAX_NAMES, MOST_NAMED, SAME_PLACE_M, Gazetteer, area_extents
from geo.grid import Grid
from geo.plane import distance_m, metres_per_degree

# A strip of land on the equator, one street 4.4 km wide after the other, and a county that is 33 km wide.
# Code, name, west and east end in degrees; all are 0.02 degrees high but the last.
AREAS = [
    ("990321", "平定县", 0.00, 0.08),
    ("990321001", "冠山镇", 0.00, 0.04),
    ("990321001001", "南关村委会", 0.00, 0.02),
    ("990321001002", "东关社区居委会", 0.02, 0.04),
    ("990321002", "锁簧镇", 0.04, 0.08),
    ("990321002001", "北庄村委会", 0.04, 0.06),
    ("990322", "盂县", 0.08, 0.16),
    ("990322001", "秀水镇", 0.08, 0.12),
    ("990322001001", "南关村委会", 0.08, 0.10),
    ("990322001002", "建设社区居民委员会", 0.10, 0.12),
    ("990322002", "上社镇", 0.12, 0.16),
    ("990302", "城区", 0.16, 0.20),
    ("990302001", "上站街道办事处", 0.16, 0.20),
    ("990399", "广阔县", 0.30, 0.60),
]
LEVEL_OF_LENGTH = {6: "county", 9: "street", 12: "community", 15: "grid"}


def make_grid(areas=AREAS):
    features = []
    for code, name, west, east in areas:
        north = 0.30 if code == "990399" else 0.02
        ring = [[west, 0.0], [east, 0.0], [east, north], [west, north], [west, 0.0]]
        properties = {"code": code, "level": LEVEL_OF_LENGTH[len(code)], "parent": code[:-3] if len(code) > 6 else None}
        geometry = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "properties": properties | {"name": name}, "geometry": geometry})
    data = json.dumps({"type": "FeatureCollection", "features": features}).encode()
    return Grid.from_geojson(data, ("county", "street", "community", "grid"))


GRID = make_grid()


@dataclass(frozen=True)
class Spot:
    """A place of `places.csv`."""

    names: tuple[str, ...]
    lon: float
    lat: float
    accuracy_m: float
    code: str | None = None


def spot(names, lon, lat=0.01, accuracy_m=60.0, code=None):
    return Spot(tuple(names.split("|")), lon, lat, accuracy_m, code)


PLACES = [
    spot("人民路", 0.010, accuracy_m=800),
    spot("人民路", 0.090, accuracy_m=800),
    spot("解放路", 0.014, 0.008, accuracy_m=700),
    spot("人民路与解放路交叉口", 0.011, 0.009, accuracy_m=30),
    spot("人民路小学|人小", 0.012, 0.011),
    spot("人民路12号", 0.0102, accuracy_m=15),
    spot("五一路", 0.050, accuracy_m=500),
    spot("农贸市场", 0.052, accuracy_m=50),
    spot("新华书店", 0.013),
    spot("新华书店", 0.0132),
    spot("体育馆", 0.110),
    spot("水泉", 0.170),
    spot("邻市车站", 5.0),
    spot("文化宫", 0.0801, accuracy_m=80, code="990321002"),
    spot("文化宫", 0.150),
    spot("模糊山", 0.050, accuracy_m=4990),
]


def make_gazetteer(places=PLACES, grid=GRID):
    return Gazetteer(
        grid,
        [place.names for place in places],
        [place.lon for place in places],
        [place.lat for place in places],
        [place.accuracy_m for place in places],
        [place.code for place in places],
    )


GAZETTEER = make_gazetteer()


def where(address, text=""):
    """Longitude and accuracy in whole metres, or None."""
    placed = GAZETTEER.place(address, text)
    return None if placed is None else (round(placed.lon, 4), round(placed.accuracy_m))


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(gazetteer).failed == 0


# ------------------------------------------------------------------------------------------------------- places


@pytest.mark.parametrize("house", ["12号", "十二号", "１２号", " 12 号", "12#"])
def test_a_house_is_found_however_its_number_is_written(house):
    assert where(f"平定县人民路{house}漏水") == (0.0102, 15)


@pytest.mark.parametrize("house", ["120号", "2号", "112号", "12-1号"])
def test_another_house_is_only_the_road(house):
    assert where(f"平定县人民路{house}漏水") == (0.01, 800)


def test_a_name_inside_a_longer_one_is_not_found():
    assert where("人民路小学门口") == (0.012, 60)
    assert where("平定县人民路小区") == (0.01, 800)  # a name that nobody listed hides nothing


def test_an_alias_is_a_name():
    assert where("人小门口") == (0.012, 60)


def test_a_bus_s_number_is_not_a_road_s_name():
    assert where("", "五一路") == (0.05, 500)
    assert where("", "乘51路公交车") is None
    assert where("", "五一放假") is None


def test_neither_a_telephone_number_nor_an_identity_card_is_a_house():
    assert where("", "电话13812345678，身份证140303199001011234，车牌晋C12345") is None


@pytest.mark.parametrize(
    "said",
    ["人民路与解放路交叉口", "解放路和人民路交叉口", "解放路人民路口", "人民路、解放路", "解放路跟人民路的交汇处"],
)
def test_a_crossing_is_found_if_it_is_a_place_whichever_road_comes_first(said):
    expected = (0.014, 700) if said == "人民路、解放路" else (0.011, 30)
    assert where(said) == expected


def test_two_roads_make_no_crossing_that_is_not_listed():
    """Their points say nothing of where they meet: the first road stands, with the accuracy of a road."""
    assert where("平定县五一路与人民路交叉口") == (0.05, 500)


@pytest.mark.parametrize(
    ("after", "accuracy_m"),
    [("", 50), ("门口", 50), ("附近", math.hypot(50, 100)), ("西侧一带", math.hypot(50, 100)),
     ("对面", math.hypot(50, 50)), ("，旁边的树", math.hypot(50, 50)), ("往东200米", math.hypot(50, 200)),
     ("以北两公里", math.hypot(50, 2000)), ("向西1.5km处", math.hypot(50, 1500)), ("，反映了很久了的问题，附近", 50)],
)  # fmt: skip
def test_what_follows_a_name_says_how_far_from_it(after, accuracy_m):
    placed = GAZETTEER.place(f"锁簧镇农贸市场{after}", "")
    assert (placed.lon, placed.accuracy_m) == (0.052, pytest.approx(accuracy_m))


def test_what_is_vaguer_than_a_message_may_be_is_not_placed():
    assert where("模糊山") == (0.05, 4990)
    assert where("模糊山以北500米") is None


def test_the_first_place_counts_unless_a_later_one_is_finer_and_lies_there():
    assert where("锁簧镇五一路农贸市场门口") == (0.052, 50)
    assert where("农贸市场，靠近五一路") == (0.052, 50)
    assert where("五一路，不是体育馆那边") == (0.05, 500)


def test_the_address_decides_before_the_text():
    assert where("五一路", "农贸市场门口的井盖") == (0.05, 500)
    assert where("路边", "农贸市场门口的井盖") == (0.052, 50)


def test_a_place_outside_of_the_city_means_nothing_and_hides_no_other():
    assert where("邻市车站") is None
    assert where("邻市车站发车，到农贸市场") == (0.052, 50)


# ------------------------------------------------------------------------------------------------ shared names


@pytest.mark.parametrize(
    ("address", "text", "lon"),
    [
        ("平定县人民路", "", 0.01),
        ("盂县人民路", "", 0.09),
        ("人民路，平定县", "", 0.01),
        ("人民路", "盂县的井盖", 0.09),
        ("秀水镇人民路", "", 0.09),
        ("人民路", "东关社区居民反映", 0.01),
        ("平定人民路", "", 0.01),
        ("平定冠山人民路", "", 0.01),
        ("平定县冠山镇南关村人民路", "", 0.01),
        ("平定县人民路", "我是盂县人", 0.01),
    ],
)
def test_a_shared_name_is_told_apart_by_the_areas_named(address, text, lon):
    assert where(address, text) == (lon, 800)


@pytest.mark.parametrize("address", ["人民路", "平定的人民路", "平定县和盂县的人民路"])
def test_a_shared_name_that_nothing_tells_apart_means_nothing(address):
    assert where(address) is None


def test_a_shared_name_is_not_told_apart_by_another_shared_one():
    """南关村 lies in both counties, and so does 人民路; that both lie in 冠山镇 only its name says."""
    assert where("南关村人民路") is None
    assert where("冠山镇南关村人民路") == (0.01, 800)


def test_places_of_one_name_close_together_are_one_seen_from_afar():
    placed = GAZETTEER.place("新华书店", "")
    apart_m = float(distance_m(0.013, 0.01, 0.0132, 0.01))
    assert (placed.lon, placed.lat) == (pytest.approx(0.0131), 0.01)
    assert placed.accuracy_m == pytest.approx(math.hypot(60, apart_m / 2))


def test_a_place_of_another_county_is_left_out():
    """There is a 体育馆 in 盂县; whoever says 平定县 does not mean it."""
    assert where("体育馆") == (0.11, 60)
    placed = GAZETTEER.place("平定县体育馆", "")
    assert placed.name == "平定县"


def test_a_place_of_another_street_is_left_out_unless_it_reaches_the_one_named():
    """The point of 五一路 lies 1.1 km east of 冠山镇."""
    assert GAZETTEER.place("锁簧镇新华书店", "").name == "锁簧镇"
    assert GAZETTEER.place("冠山镇五一路", "").name == "冠山镇"
    wide = make_gazetteer([spot("五一路", 0.05, accuracy_m=600)])
    assert wide.place("冠山镇五一路", "").name == "五一路"
    assert wide.place("冠山镇南关村五一路", "").name == "五一路"
    assert wide.place("上社镇五一路", "").name == "上社镇"
    assert wide.place("盂县五一路", "").name == "盂县"


def test_a_place_of_another_community_of_the_street_is_not_left_out():
    """Who lives in 东关社区 may well complain of the school in 南关村."""
    assert where("人民路小学", "东关社区居民反映") == (0.012, 60)


def test_the_cell_that_a_place_states_counts_for_the_context():
    """文化宫 at the county's border lies, says its entry, in 锁簧镇; its point is 11 m beyond."""
    assert where("平定县文化宫") == (0.0801, 80)
    assert where("锁簧镇文化宫") == (0.0801, 80)
    assert where("上社镇文化宫") == (0.15, 60)


# ------------------------------------------------------------------------------------------------------- areas


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("冠山镇无名巷", "冠山镇"),
        ("平定县冠山镇东关社区居委会", "东关社区居委会"),
        ("平定县冠山镇东关社区3号楼", "东关社区"),
        ("平定县冠山镇南关村附近漏水", "南关村"),
        ("平定冠山镇", "冠山镇"),
        ("上站街道", "上站街道"),
        ("秀水镇建设社区", "建设社区"),
        ("冠山镇，东关社区和南关村之间", "冠山镇"),
        ("平定县锁簧镇南关村", "平定县"),
    ],
)
def test_a_text_that_names_only_areas_is_placed_in_the_finest(said, name):
    placed = GAZETTEER.place("", said)
    assert placed.name == name
    widened_m = 100 if "附近" in said else 0
    cell = next(cell for cell, (_, full, *_) in enumerate(sorted(AREAS)) if full.startswith(name[:2]))
    lon, lat, accuracy_m = (float(column[0]) for column in area_extents(GRID.geometries[[cell]]))
    assert (placed.lon, placed.lat) == (lon, lat)
    assert placed.accuracy_m == pytest.approx(math.hypot(accuracy_m, widened_m))


@pytest.mark.parametrize(
    "said",
    [
        pytest.param("广阔县", id="a county of 33 km is vaguer than a message may be"),
        pytest.param("南关村附近", id="a village of two counties"),
        pytest.param("冠山镇或者锁簧镇", id="two streets, and no area named around both"),
        pytest.param("道路不平定要修", id="a short form that is another word"),
        pytest.param("建设路东关大街", id="two more"),
        pytest.param("老城区到处都是", id="a name of two characters within another word"),
        pytest.param("全市各地", id="nothing at all"),
        pytest.param("", id="no text"),
    ],
)
def test_what_names_no_one_area_is_not_placed(said):
    assert GAZETTEER.place(said, "") is None


def test_a_county_of_two_characters_is_context_before_what_lies_in_it():
    grid = make_grid([*AREAS, ("990302002", "南山街道", 0.20, 0.21), ("990322003", "南山街道", 0.21, 0.22)])
    assert make_gazetteer([], grid).place("城区南山街道", "").lon == pytest.approx(0.205)
    assert make_gazetteer([], grid).place("盂县南山街道", "").lon == pytest.approx(0.215)
    assert make_gazetteer([], grid).place("南山街道", "") is None


def test_cells_that_are_named_by_their_code_are_no_names():
    code = "990302001001"
    grid = make_grid([*AREAS, (code, code, 0.16, 0.18)])
    assert make_gazetteer([], grid).place(f"编号{code}", "") is None


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param("POLYGON ((0 0, 0.02 0, 0.02 0.01, 0 0.01, 0 0))", id="a block"),
        pytest.param("POLYGON ((0 50, 0.1 50, 0.1 50.1, 0 50.1, 0 50), (0.02 50.02, 0.09 50.02, 0.09 50.09, "
                     "0.02 50.09, 0.02 50.02))", id="a ring, whose centroid lies in the hole"),
        pytest.param("POLYGON ((0 0, 0.1 0, 0.1 0.01, 0.01 0.01, 0.01 0.1, 0 0.1, 0 0))", id="a hook"),
        pytest.param("MULTIPOLYGON (((0 0, 0 0.01, 0.01 0.01, 0.01 0, 0 0)), ((0.05 0, 0.08 0, 0.08 0.02, 0.05 0)))",
                     id="two parts that turn opposite ways"),
    ],
)  # fmt: skip
def test_the_accuracy_of_an_area_is_that_of_its_points(shape):
    """Against a lattice of points: their mean squared distance, and at least three quarters within twice its root."""
    geometry = shapely.from_wkt(shape)
    lon, lat, accuracy_m = (float(column[0]) for column in area_extents(np.array([geometry])))
    assert shapely.contains_xy(geometry, lon, lat)
    west, south, east, north = geometry.bounds
    x, y = np.meshgrid(np.linspace(west, east, 801)[:-1], np.linspace(south, north, 801)[:-1])
    x, y = x + (east - west) / 1600, y + (north - south) / 1600
    inside = shapely.contains_xy(geometry, x, y)
    apart_m = distance_m(lon, lat, x[inside], y[inside])
    assert accuracy_m == pytest.approx(np.sqrt((apart_m**2).mean()), rel=2e-3)
    assert (apart_m <= 2 * accuracy_m).mean() >= 0.75


# ------------------------------------------------------------------------------------------------------- bounds


def test_a_name_at_the_end_of_what_is_looked_at_is_not_half_a_name():
    """人民路小学 is cut after 人民路: neither the school, which was not seen, nor the road, which was not said."""
    for cut in range(3, 5):
        assert where("好" * (LOOKED_AT - cut) + "人民路小学") is None
    assert where("好" * (LOOKED_AT - 20) + "五一路" + "好" * 30) == (0.05, 500)


def test_only_the_first_names_are_looked_at():
    assert where("人民路，" * (MOST_NAMED - 1) + "五一路") == (0.05, 500)
    assert where("人民路，" * MOST_NAMED + "五一路") is None


def test_short_forms_without_end_are_looked_at_no_further_than_names():
    """998 of them before one name were once too deep for the stack."""
    address = "平定" * ((LOOKED_AT - 3) // 2) + "冠山镇"
    assert where(address) == where("平定冠山镇")
    assert len(list(GAZETTEER._named(address))) == 1 + MOST_NAMED
    assert len(list(GAZETTEER._named("平定冠山镇，" * MOST_NAMED))) == 2 * MOST_NAMED


WORDS = st.sampled_from(
    [
        "平定",
        "南关",
        "盂县",
        "城区",
        "建设",
        "冠山镇",
        "南关村",
        "建设社区",
        "人民路",
        "解放路",
        "人小",
        "与",
        "，",
        "好",
    ]
)
REPEATED = st.builds(
    lambda words, times: "".join(words) * times, st.lists(WORDS, min_size=1, max_size=4), st.integers(1, LOOKED_AT)
)


@given(st.lists(REPEATED | st.text(max_size=20), max_size=4).map("".join), REPEATED)
@example("城区" * 998 + "上站街道", "南关" * 998 + "南关村")
def test_whatever_is_said_however_often_is_a_bounded_number_of_names(address, text):
    GAZETTEER.place(address, text)
    for said in (address, text):
        # A crossing of two roads is found beside them.
        assert len(list(GAZETTEER._named(said))) <= 3 * MOST_NAMED


def test_more_names_than_are_taken_are_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(gazetteer, "MAX_NAMES", 3)
    make_gazetteer([spot("人民路|人民大街|大街", 0.01)])
    with pytest.raises(ValueError, match=r"^more than 3 names of places$"):
        make_gazetteer([spot("人民路|人民大街|大街", 0.01), spot("五一路", 0.01)])
    assert MAX_NAMES == 2_000_000


def test_a_stated_cell_that_there_is_not_is_an_error():
    with pytest.raises(ValueError, match="'990000' is no cell of the grid"):
        make_gazetteer([spot("人民路", 0.01, code="990000")])


def test_a_city_of_streets_alone_has_no_county_to_leave_places_out_by():
    features = []
    for code, name, west, east in AREAS:
        if len(code) == 9:
            ring = [[west, 0], [east, 0], [east, 1], [west, 1], [west, 0]]
            properties = {"code": code, "level": "street", "parent": None, "name": name}
            geometry = {"type": "Polygon", "coordinates": [ring]}
            features.append({"type": "Feature", "properties": properties, "geometry": geometry})
    grid = Grid.from_geojson(json.dumps({"type": "FeatureCollection", "features": features}).encode(), ("street",))
    city = make_gazetteer([spot("五一路", 0.081, accuracy_m=60)], grid)
    assert city.place("秀水镇五一路", "").lon == 0.081
    assert city.place("锁簧镇五一路", "").lon == 0.081  # 111 m beyond its border
    assert city.place("冠山镇五一路", "") is None


def test_a_city_without_places_knows_its_areas():
    assert make_gazetteer([]).place("冠山镇", "").name == "冠山镇"


# -------------------------------------------------------------------------------------------- the rules, written out

AFTER_M = {"": 0.0, "附近": 100.0, "对面": 50.0, "往东300米": 300.0}
RECTANGLES = {code: (west, east, 0.3 if code == "990399" else 0.02) for code, _, west, east in AREAS}
AREA_NAMES = {
    "平定县": ["990321"],
    "盂县": ["990322"],
    "冠山镇": ["990321001"],
    "秀水镇": ["990322001"],
    "南关村": ["990321001001", "990322001001"],
    "东关社区": ["990321001002"],
    "广阔县": ["990399"],
}


def by_the_rules(places, address, text):
    """`Gazetteer.place`, for (name, what follows) in order of address and text: its docstring in sets and loops."""

    def nested(a, b):
        return a.startswith(b) or b.startswith(a)

    def code_of(place):
        around = [
            code for code, (west, east, north) in RECTANGLES.items() if west <= place.lon <= east and place.lat <= north
        ]
        return max(around, key=len)

    def outside_m(place, code):
        west, east, north = RECTANGLES[code]
        m_lon, m_lat = metres_per_degree(place.lat)
        x = max(west - place.lon, 0, place.lon - east) * m_lon
        return math.hypot(x, max(place.lat - north, 0) * m_lat)

    def lies_about(place, code):
        if code_of(place).startswith(code):
            return True
        in_county = len(code) == 9 and code[:6] == code_of(place)[:6]
        return in_county and outside_m(place, code) <= 2 * place.accuracy_m

    def widened(lon, lat, accuracy_m, after):
        accuracy_m = math.hypot(accuracy_m, AFTER_M[after])
        return (lon, lat, accuracy_m) if accuracy_m <= 5000 else None

    def areas_of(said, elsewhere):
        named = set()
        for name, _ in said:
            agreeing_with = {
                code: tuple(
                    sum(
                        other != name and any(nested(code, one) for one in AREA_NAMES.get(other, ()))
                        for other, _ in some
                    )
                    for some in (said, elsewhere)
                )
                for code in AREA_NAMES.get(name, ())
            }
            named |= {code for code, agreeing in agreeing_with.items() if agreeing == max(agreeing_with.values())}
        return named

    of_address, of_text = areas_of(address, text), areas_of(text, address)
    context = of_address or of_text
    context = context | {code for code in of_text if any(nested(code, other) for other in of_address)}
    finest = {code for code in context if not any(other != code and other.startswith(code) for other in context)}
    for said in (address, text):
        chosen = None
        for name, after in said:
            those = [place for place in places if name in place.names]
            if context:
                inside = [place for place in those if any(code_of(place).startswith(code) for code in finest)]
                about = [place for place in those if any(lies_about(place, code[:9]) for code in finest)]
                those = inside or about
            if not those:
                continue
            lon, lat = (sum(getattr(place, axis) for place in those) / len(those) for axis in ("lon", "lat"))
            spread_m = max(float(distance_m(lon, lat, place.lon, place.lat)) for place in those)
            if len(those) > 1 and spread_m > SAME_PLACE_M:
                continue
            accuracy_m = max(place.accuracy_m for place in those)
            placed = widened(lon, lat, math.hypot(accuracy_m, spread_m) if len(those) > 1 else accuracy_m, after)
            if placed is not None and (
                chosen is None
                or (placed[2] < chosen[2] and float(distance_m(*placed[:2], *chosen[:2])) <= 2 * chosen[2])
            ):
                chosen = placed
        if chosen is not None:
            return chosen
    settled = [code for code in context if all(nested(code, other) for other in context)]
    if not settled:
        return None
    code = max(settled, key=len)
    west, east, north = RECTANGLES[code]
    m_lon, m_lat = metres_per_degree(north / 2)
    rms_m = math.hypot((east - west) * float(m_lon), north * float(m_lat)) / math.sqrt(12)
    after = next(after for name, after in (*address, *text) if code in AREA_NAMES.get(name, ()))
    return widened((west + east) / 2, north / 2, rms_m, after)


PLACE_NAMES = ["人民路", "五一路", "农贸市场"]
# No place lies on a border, nor so that a distance is just what is allowed.
STEPS = st.sampled_from([*range(46), 0.05, 0.1])
SPOTS = st.builds(
    lambda name, step, accuracy_m: spot(name, 0.0013 + step * 0.0031, accuracy_m=accuracy_m),
    st.sampled_from(PLACE_NAMES),
    STEPS,
    st.sampled_from([30.0, 50.0, 777.0, 1313.0, 4990.0]),
)
SAID = st.lists(st.tuples(st.sampled_from([*PLACE_NAMES, *AREA_NAMES]), st.sampled_from(list(AFTER_M))), max_size=4)


@given(st.lists(SPOTS, max_size=6), SAID, SAID)
@example(
    [spot("人民路", 0.01, accuracy_m=777), spot("人民路", 0.09)], [("人民路", "附近")], [("南关村", ""), ("秀水镇", "")]
)
@example([spot("五一路", 0.047, accuracy_m=777)], [("冠山镇", ""), ("五一路", "")], [])
def test_a_ticket_is_placed_by_the_rules(places, address, text):
    said = ["，".join(name + after for name, after in those) for those in (address, text)]
    # That every name is known, if only of a place elsewhere, makes it clear what stands between two of them.
    elsewhere = [spot(name, 5.0) for name in PLACE_NAMES]
    placed = make_gazetteer([*places, *elsewhere]).place(*said)
    expected = by_the_rules(places, address, text)
    assert (placed is None) == (expected is None)
    if placed is not None:
        assert placed[:3] == pytest.approx(expected, rel=1e-6)
