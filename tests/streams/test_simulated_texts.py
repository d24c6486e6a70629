"""What people say in a simulated city: right, wrong and left out as often as the error model says."""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections import Counter
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo.plane import distance_m
from packs import make_sample
from streams.error_model import SCENARIOS, ErrorModelError, TextModel, read_error_model, shipped_text
from streams.intake import IntakePack
from streams.messages import SOURCE_OF_TOPIC
from streams.pack import load_pack
from streams.simulated_addresses import numeral
from streams.simulated_chance import Chance
from streams.simulated_city import SimulatedCity
from streams.simulated_landmarks import Landmarks
from streams.simulated_texts import Texts
from streams.simulated_words import LONGEST_TEXT, problems, vocabulary
from streams.simulation import simulate

SAMPLE = Path(make_sample.__file__).parent / "sample"
START = datetime.fromisoformat("2026-06-01T08:00:00+08:00")
MODEL = read_error_model()
WORDS = vocabulary()
SPACING_M = MODEL.landmarks.spacing_m
EXACT = dict.fromkeys(TextModel.__struct_fields__, 0.0)
"""Nothing is said but a name for the thing, and nothing is wrong with it."""


@pytest.fixture(scope="module")
def pack():
    return load_pack(SAMPLE)


@pytest.fixture(scope="module")
def city(pack):
    return SimulatedCity(pack, MODEL.iot.senses)


@pytest.fixture(scope="module")
def somewhere(city):
    """Six hundred points of the city."""
    chance = Chance(3)
    return [city.anywhere(chance) for _ in range(600)]


def model_with(**shares):
    """The shipped model, but callers and workers with these shares and otherwise exact and short of words."""
    texts = {
        source: msgspec.structs.replace(
            getattr(MODEL, source).texts,
            **{
                key: share
                for key, share in {**dict.fromkeys(("address", "again_said", "read_out", "silent", "asset"), 0.0),
                                   **EXACT, **shares}.items()
                if key in getattr(MODEL, source).texts.__struct_fields__
            },
        )
        for source in ("hotline", "patrol")
    }  # fmt: skip
    return msgspec.structs.replace(
        MODEL,
        hotline=msgspec.structs.replace(MODEL.hotline, texts=texts["hotline"]),
        patrol=msgspec.structs.replace(MODEL.patrol, texts=texts["patrol"]),
    )


def is_within_chance(count, of, share):
    """Four and a half sigma of the binomial: one such test in a hundred thousand fails by bad luck."""
    assert of > 0
    assert abs(count - of * share) <= 4.5 * math.sqrt(of * share * (1 - share)) + 1, (count, of, share)


# ------------------------------------------------------------------------------------------------------ the shares


@functools.cache
def traits_of(source, pack):
    """What came true in some thousands of texts, under the shipped model."""
    city = SimulatedCity(pack, MODEL.iot.senses)
    texts, chance = Texts(city, MODEL, 11), Chance(4)
    categories = [category for category in pack.categories if WORDS.thing(category.code).called]
    seen = Counter()
    for number in range(4000):
        category, (lon, lat) = chance.pick(categories), city.anywhere(chance)
        if source == "hotline":
            told = texts.ticket(category, lon, lat, number, address="鼓楼路口")
        else:
            told = texts.finding(category, lon, lat, number)
        seen.update(told.traits)
        seen["texts"] += 1
    seen["spoken"] = seen["texts"] - seen["silent"]
    seen["long"] = seen["spoken"] - seen["terse"]
    seen["sided"] = seen["side"] + seen["steps"]
    seen["beside_one"] = seen["landmark"] - seen["between"]
    seen["names"] = seen["landmark"] + seen["between"] + seen["estate"]
    seen["mentioned"] = seen["detail"] + seen["detail_further"]
    for part in ("opening", "when", "closing", "detail", "detail_further"):
        seen[f"{part}s"] = seen[part] + seen[f"{part}_left_out"]
    return seen


@pytest.mark.parametrize("source", ["hotline", "patrol"])
@pytest.mark.parametrize(
    ("trait", "of"),
    [
        ("terse", "spoken"), ("own_word", "spoken"), ("landmark", "long"), ("in_numerals", "long"),
        ("between", "landmark"), ("second", "landmark"), ("beside", "beside_one"), ("side", "beside_one"),
        ("steps", "beside_one"), ("side_wrong", "sided"), ("other_name", "names"), ("misheard", "names"),
        ("estate", "landmark"), ("detail", "details"), ("detail_further", "detail_furthers"),
        ("mistaken", "mentioned"), ("miscounted", "counted"), ("opening", "openings"),
        ("when", "whens"), ("closing", "closings"),
    ],
)  # fmt: skip
def test_shares_come_out_as_the_file_says(pack, source, trait, of):
    seen = traits_of(source, pack)
    if source == "patrol" and trait == "when":
        assert seen["when"] == 0
        return
    is_within_chance(seen[trait], seen[of], getattr(getattr(MODEL, source).texts, trait))


def test_addresses_are_repeated_and_workers_silent_as_often_as_the_file_says(pack):
    is_within_chance(traits_of("hotline", pack)["address"], 4000, MODEL.hotline.texts.address)
    is_within_chance(traits_of("patrol", pack)["silent"], 4000, MODEL.patrol.texts.silent)


def test_an_event_has_as_many_details_as_the_file_says(pack, city):
    texts = Texts(city, MODEL, 11)
    counts = Counter(len(texts.details(pack.categories[0], number)) for number in range(3000))
    low, high = MODEL.events.details
    assert set(counts) == set(range(low, high + 1))
    for count in counts.values():
        is_within_chance(count, 3000, 1 / (high - low + 1))


# ------------------------------------------------------------------------------------------------------ the places


def said_of(landmark):
    """All that an exact speaker can call a landmark."""
    if landmark.number is None:
        return set(landmark.forms)
    numbers = (str(landmark.number), numeral(landmark.number))
    return {form.replace("{n}", number) for form in landmark.forms for number in numbers}


@pytest.fixture(scope="module")
def landmarks(city):
    return Landmarks(city, WORDS.landmarks, 11, spacing_m=SPACING_M, jitter=MODEL.landmarks.jitter)


def all_around(landmarks, lon, lat):
    """The landmarks within some hundred metres, found by asking on a fine raster, the nearest first."""
    found = {}
    for i, j in itertools.product(range(-8, 9), repeat=2):
        for one in landmarks.nearest(lon + i * 0.00025, lat + j * 0.0002, 3):
            found[one.lon, one.lat] = one
    return sorted(found.values(), key=lambda one: float(distance_m(lon, lat, one.lon, one.lat)))


def test_the_nearest_landmarks_are_the_nearest_of_all(landmarks, somewhere):
    for lon, lat in somewhere[:40]:
        expected = [float(distance_m(lon, lat, one.lon, one.lat)) for one in all_around(landmarks, lon, lat)[:3]]
        got = [float(distance_m(lon, lat, one.lon, one.lat)) for one in landmarks.nearest(lon, lat, 3)]
        assert got == pytest.approx(expected, abs=0.05)


def test_one_landmark_stands_in_each_square(city, somewhere):
    """As many in a circle as the spacing says, and no two much nearer than the jitter lets them."""
    half = Landmarks(city, WORDS.landmarks, 11, spacing_m=50, jitter=0.5)
    lon, lat = somewhere[0]
    around = all_around(half, lon, lat)
    in_circle = sum(float(distance_m(lon, lat, one.lon, one.lat)) <= 120 for one in around)
    assert in_circle == pytest.approx(math.pi * 120**2 / 50**2, rel=0.3)
    least_m = min(float(distance_m(a.lon, a.lat, b.lon, b.lat)) for a, b in itertools.combinations(around, 2))
    assert least_m >= 25 * 0.99


@given(lon=st.floats(-179, 179), lat=st.floats(-60, 60))
def test_a_city_anywhere_on_earth_has_landmarks(landmarks, lon, lat):
    assert len(landmarks.nearest(lon, lat, 3)) == 3


def test_names_come_back_across_a_city_as_chains_do(landmarks, somewhere):
    names = Counter(landmarks.nearest(*point, 1)[0].forms[0] for point in somewhere)
    assert len(names) > 80
    assert max(names.values()) > 10


def test_two_spots_of_a_storm_are_sometimes_told_by_one_landmark_and_mostly_not(landmarks, somewhere):
    """Sixty metres apart, as the storm scenario has them: neither always the same shop front nor never."""
    same = 0
    for lon, lat in somewhere:
        one, other = (landmarks.nearest(*point, 1)[0] for point in ((lon, lat), (lon + 60 / 86_800, lat)))
        same += one == other
    assert 0.05 * len(somewhere) < same < 0.3 * len(somewhere)


@pytest.mark.parametrize(("share", "rank"), [({}, 0), ({"second": 1.0}, 1)], ids=["nearest", "second"])
def test_people_name_what_stands_nearest_or_what_stands_next(pack, city, landmarks, somewhere, share, rank):
    texts = Texts(city, model_with(landmark=1.0, other_name=0.5, in_numerals=0.5, **share), 11)
    for lon, lat in somewhere:
        meant = landmarks.nearest(lon, lat, 2)[rank]
        for told in (texts.ticket(pack.categories[1], lon, lat, 1), texts.finding(pack.categories[1], lon, lat, 1)):
            assert any(name in told.text for name in said_of(meant)), (told.text, meant)


def test_the_side_that_is_said_is_the_side_where_it_is(pack, city, landmarks, somewhere):
    texts = Texts(city, model_with(landmark=1.0, side=1.0), 11)
    for lon, lat in somewhere:
        said = texts.ticket(pack.categories[1], lon, lat, 1).text
        near = landmarks.nearest(lon, lat, 1)[0]
        east_m, north_m = (lon - near.lon) * 86_800, (lat - near.lat) * 111_000
        if abs(abs(east_m) - abs(north_m)) < 0.5:
            continue
        if abs(east_m) > abs(north_m):
            expected = WORDS.sides[1 if east_m > 0 else 3]
        else:
            expected = WORDS.sides[0 if north_m > 0 else 2]
        assert any(word in said for word in expected), (said, east_m, north_m)


def test_the_steps_that_are_said_are_as_far_as_it_is(pack, city, landmarks, somewhere):
    texts = Texts(city, model_with(landmark=1.0, steps=1.0), 11)
    for lon, lat in somewhere:
        said = texts.ticket(pack.categories[1], lon, lat, 1).text
        near = landmarks.nearest(lon, lat, 1)[0]
        metres = int(re.search(r"(\d+)米", said).group(1))
        assert metres == pytest.approx(max(float(distance_m(lon, lat, near.lon, near.lat)), 10), abs=5.01)


def test_no_landmark_and_no_detail_names_a_place_of_the_list(pack):
    """Else a ticket that says nothing of its place would be placed, by a word for what stands beside it."""
    gazetteer = IntakePack(pack).gazetteer
    said = [kind_first + form for kind in (*WORDS.landmarks, *WORDS.estates) for name in kind.names for form in name
            for kind_first in ("", *kind.first)]  # fmt: skip
    said += [word for thing in WORDS.things for aspect in thing.aspects for choice in aspect for word in choice]
    said += [word for thing in WORDS.things for word in thing.called]
    for manner in (WORDS.hotline, WORDS.patrol):
        said += [*manner.openings, *manner.whens, *manner.closings, *manner.agains, *manner.not_repaireds]
    assert [word for word in said if gazetteer.place("", word.replace("{n}", "7").replace("{m}", "40"))] == []


# ----------------------------------------------------------------------------------------------------- the details


def wordings(pack_category, detail):
    """The ways to say one detail, with its number in digits or numerals, 两 for two."""
    choice = WORDS.thing(pack_category.code).aspects[detail.aspect][detail.choice]
    small = {str(detail.small), numeral(detail.small), "两" if detail.small == 2 else str(detail.small)}
    large = {str(detail.large), numeral(detail.large)}
    return {word.replace("{n}", n).replace("{m}", m) for word in choice for n in small for m in large}


def test_all_who_mention_a_detail_of_an_event_mean_the_same(pack, city, somewhere):
    texts = Texts(city, model_with(detail=1.0, detail_further=1.0, in_numerals=0.5), 11)
    for category in pack.categories:
        for number in range(6):
            details = texts.details(category, number)
            for said in (
                texts.ticket(category, *somewhere[number], number),
                texts.finding(category, *somewhere[0], number),
            ):
                for detail in details:
                    assert any(word in said.text for word in wordings(category, detail)), (said.text, detail)


def test_what_is_said_of_one_event_has_more_in_common_than_what_is_said_of_two(pack, city):
    """The point of it all; by the plainest measure there is, pairs of neighbouring signs that both texts have."""

    def in_common(one, other):
        mine, yours = ({text[at : at + 2] for at in range(len(text) - 1)} for text in (one, other))
        return len(mine & yours) / len(mine | yours)

    texts, chance = Texts(city, MODEL, 11), Chance(9)
    same, others = [], []
    for category in pack.categories:
        for number in range(20):
            point = city.anywhere(chance)
            one, other = (texts.ticket(category, *point, number).text for _ in range(2))
            stranger = texts.ticket(chance.pick(pack.categories), *city.anywhere(chance), 1000 + number).text
            same.append(in_common(one, other))
            others.append(in_common(one, stranger))
    # The bounds are those of real messages, see error_model.toml: the simulation must not make it easier.
    assert 0.04 < np.median(same) < 0.12
    assert np.quantile(same, 0.75) < 0.22
    assert 0.005 < np.mean(others) < 0.02


# ------------------------------------------------------------------------------------------------------ the assets


def lamps(city):
    return [device for device in city.sensors if device.kind == "street_lamp"]


def test_workers_pick_the_part_they_stand_at_or_its_neighbour(pack, city):
    texts = Texts(city, MODEL, 11)
    lamp_is_out = next(category for category in pack.categories if category.code == "01037")
    known = {lamp.asset_id for lamp in lamps(city)}
    seen = Counter()
    for _ in range(200):
        for lamp in lamps(city):
            told = texts.finding(lamp_is_out, lamp.lon, lamp.lat, 1)
            assert told.asset_id is None or told.asset_id in known
            around = [
                other for other in lamps(city)
                if float(distance_m(lamp.lon, lamp.lat, other.lon, other.lat)) <= MODEL.patrol.texts.neighbour_within_m
            ]  # fmt: skip
            seen["all"] += 1
            seen["picked"] += told.asset_id is not None
            seen["beside another"] += told.asset_id is not None and len(around) > 1
            seen["wrong"] += told.asset_id not in (None, lamp.asset_id)
            assert ("neighbour" in told.errors) == (told.asset_id not in (None, lamp.asset_id))
    is_within_chance(seen["picked"], seen["all"], MODEL.patrol.texts.asset)
    is_within_chance(seen["wrong"], seen["beside another"], MODEL.patrol.texts.neighbour)


def test_nobody_picks_a_part_for_what_is_no_part_or_where_there_is_none(pack, city):
    texts = Texts(city, model_with(asset=1.0), 11)
    by_code = {category.code: category for category in pack.categories}
    lamp = lamps(city)[0]
    assert texts.finding(by_code["01037"], lamp.lon, lamp.lat, 1).asset_id == lamp.asset_id
    assert texts.finding(by_code["06010"], lamp.lon, lamp.lat, 1).asset_id is None
    assert texts.finding(by_code["04002"], lamp.lon, lamp.lat, 1).asset_id is None
    bare = Texts(SimulatedCity(replace(pack, devices={}), MODEL.iot.senses), model_with(asset=1.0, read_out=1.0), 11)
    assert bare.finding(by_code["01037"], lamp.lon, lamp.lat, 1).asset_id is None
    assert "read_out" not in bare.ticket(by_code["01037"], lamp.lon, lamp.lat, 1).traits


def test_callers_read_the_number_of_a_post_beside_them(pack, city):
    texts, model = Texts(city, MODEL, 11), MODEL.hotline.texts
    by_code = {category.code: category for category in pack.categories}
    seen = Counter()
    for code in ("01037", "06010"):
        for _ in range(200):
            for lamp in lamps(city):
                told = texts.ticket(by_code[code], lamp.lon, lamp.lat, 1)
                seen.update((trait, code) for trait in told.traits)
                seen["all", code] += 1
                if "read_out" in told.traits:
                    assert (lamp.asset_id in told.text) == ("misread" not in told.traits)
                    assert ("misread" in told.errors) == ("misread" in told.traits)
                assert told.asset_id in ((None, lamp.asset_id) if code == "01037" else (None,))
                assert (told.asset_id is not None) == ("noted" in told.traits)
        is_within_chance(seen["read_out", code], seen["all", code], model.read_out)
        is_within_chance(seen["misread", code], seen["read_out", code], model.misread)
    is_within_chance(seen["noted", "01037"], seen["read_out", "01037"] - seen["misread", "01037"], model.noted)


# ------------------------------------------------------------------------------------------------ in the recording


def messages_of(got):
    """(source, message) of callers and workers."""
    for message in got.messages:
        source = SOURCE_OF_TOPIC.get(message.topic)
        if source in ("hotline", "patrol"):
            try:
                value = orjson.loads(message.value)
            except orjson.JSONDecodeError:
                continue
            if isinstance(value, dict) and isinstance(value.get("id"), str):
                yield source, value


def good_messages_of(got):
    """The same, without those that nobody can use."""
    told = {(row.source, row.report_id) for row in got.truth}
    return [(source, value) for source, value in messages_of(got) if (source, value["id"]) in told]


@pytest.fixture(scope="module")
def day(pack):
    return simulate(pack, MODEL, seed=8, start=START, hours=12)


def test_texts_of_a_day_are_short_and_hold_a_number_only_where_a_caller_gives_his(pack, day):
    assets = {device.asset_id for device in pack.devices.values()}
    seen = Counter()
    for source, value in good_messages_of(day):
        text = value.get("text", "")
        assert len(text) <= LONGEST_TEXT
        assert "{" not in text
        assert value.get("asset_id") is None or value["asset_id"] in assets
        numbers = re.findall(r"\d{7,}", text)
        assert numbers in ([], [value.get("caller")])
        is_question = source == "hotline" and "联系电话" not in text and value["category"] in ("咨询", "表扬")
        seen[source] += not is_question
        seen[source, "phone"] += bool(numbers)
        seen[source, "text"] += bool(text)
    assert seen["patrol", "phone"] == 0
    assert seen["hotline", "phone"] > 0.1 * seen["hotline"]
    is_within_chance(seen["patrol", "text"], seen["patrol"], 1 - MODEL.patrol.texts.silent)


def test_people_speak_of_the_water_in_a_storm(pack):
    storm = read_error_model(shipped_text(SCENARIOS["storm"]))
    got = simulate(pack, storm, seed=8, start=START, hours=3, rate=0.3)
    flooded = {row.report_id for row in got.truth if row.event_category == "90001"}
    water = [word for aspect in WORDS.thing("90001").aspects for choice in aspect for word in choice if "{" not in word]
    texts = [value["text"] for source, value in good_messages_of(got) if source == "hotline" and value["id"] in flooded]
    assert len(texts) > 50
    assert sum(any(word in text for word in water) for text in texts) > 0.5 * len(texts)


def test_what_is_said_changes_nothing_of_what_happens(pack):
    """Texts have a chance of their own: two models that differ in nothing else give the same city."""
    one, other = (
        simulate(pack, model, seed=5, start=START, hours=2)
        for model in (MODEL, model_with(landmark=0.3, detail=1.0, silent=0.5))
    )

    def without_words(got):
        return [
            (source, {key: value[key] for key in value if key not in ("text", "asset_id")})
            for source, value in messages_of(got)
        ]

    assert without_words(one) == without_words(other)
    assert [replace(row) for row in one.truth] == [replace(row) for row in other.truth]
    assert [message.value for message in one.messages] != [message.value for message in other.messages]


def test_the_same_seed_says_the_same_and_another_seed_has_another_city(pack, city, somewhere):
    def said(seed):
        texts = Texts(city, MODEL, seed)
        return [texts.ticket(pack.categories[n % 9], *point, n).text for n, point in enumerate(somewhere)]

    assert said(1) == said(1)
    assert sum(a == b for a, b in zip(said(1), said(2), strict=True)) < 60


def test_landmarks_and_details_do_not_depend_on_who_asks_first(city, pack, somewhere):
    one, other = (Landmarks(city, WORDS.landmarks, 7, spacing_m=SPACING_M, jitter=0.7) for _ in range(2))
    forwards = [one.nearest(*point, 2) for point in somewhere]
    backwards = [other.nearest(*point, 2) for point in reversed(somewhere)]
    assert forwards == backwards[::-1]
    texts = Texts(city, MODEL, 7)
    details = [texts.details(pack.categories[0], number) for number in range(50)]
    assert details == [Texts(city, MODEL, 7).details(pack.categories[0], number) for number in range(50)]


def test_a_second_call_says_so_and_a_complaint_says_that_nothing_was_done(pack, city, somewhere):
    texts = Texts(city, model_with(again_said=1.0), 11)
    for point in somewhere[:60]:
        again = texts.ticket(pack.categories[0], *point, 1, errors=("same_again",)).text
        assert any(word in again for word in WORDS.hotline.agains)
        complaint = texts.ticket(pack.categories[0], *point, 1, errors=("not_repaired",)).text
        assert any(word in complaint for word in WORDS.hotline.not_repaireds)


# -------------------------------------------------------------------------------------------------------- the files


def test_the_words_that_are_shipped_are_sound():
    assert list(problems(WORDS)) == []
    assert all(len(choice) == len(set(choice)) for t in WORDS.things for aspect in t.aspects for choice in aspect)


def test_the_longest_of_all_words_together_are_not_too_long():
    def longest(words):
        return max(len(word) for word in words)

    kinds = (*WORDS.landmarks, *WORDS.estates)
    name = max(
        longest(kind.first or [""]) + longest(form for forms in kind.names for form in forms) + 3 for kind in kinds
    )
    place = 60 + 3 * name + longest((*WORDS.between, *itertools.chain(*WORDS.steps)))
    thing = max(longest((*thing.called, "")) for thing in WORDS.things)
    detail = max(longest(word for choice in aspect for word in choice) for t in WORDS.things for aspect in t.aspects)
    for manner in (WORDS.hotline, WORDS.patrol):
        said = [manner.openings, manner.whens, manner.closings, (*manner.agains, *manner.not_repaireds)]
        parts = sum(longest(words) + 1 for words in said)
        read_out, phone = longest(WORDS.read_out) + 20, 17
        assert parts + place + thing + MODEL.events.details[1] * (detail + 4) + read_out + phone <= LONGEST_TEXT


def test_every_order_has_room_for_a_second_call_or_a_complaint():
    assert all({"again", "thing", "place"} <= set(order) for order in WORDS.hotline.orders)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"things": WORDS.things[1:]}, "one entry must have"),
        ({"things": WORDS.things + WORDS.things[-1:]}, "stands twice"),
        ({"hotline": msgspec.structs.replace(WORDS.hotline, orders=(("place", "weather"),))}, "weather must be one of"),
        ({"landmarks": (msgspec.structs.replace(WORDS.landmarks[0], names=(("{n}号楼",),)),)}, "{n} must stand"),
        (
            {"landmarks": (msgspec.structs.replace(WORDS.landmarks[0], numbers=(9, 2), names=(("{n}号楼",),)),)},
            "small to large",
        ),
        (
            {"things": (WORDS.things[0], msgspec.structs.replace(WORDS.things[1], aspects=((("{k}个",), ("满",)),)))},
            "only {n} and {m}",
        ),
    ],
)
def test_unsound_words_are_named(changes, complaint):
    assert any(complaint in problem for problem in problems(msgspec.structs.replace(WORDS, **changes)))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[hotline.texts]\nbetween=0.6\nsecond=0.6", "hotline.texts: between and second must not add up"),
        ("[patrol.texts]\nbeside=0.6\nside=0.6", "patrol.texts: beside, side and steps must not add up"),
        ("[landmarks]\nspacing_m = 0", "landmarks.spacing_m"),
        ("[events]\ndetails = [3, 1]", r"events.details = \[3, 1\] must go from small to large"),
    ],
)
def test_wrong_shares_are_named_with_their_key(text, complaint):
    with pytest.raises(ErrorModelError, match=complaint):
        read_error_model(text)
