"""Addresses as callers say them: most can be found again, some cannot."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from geo.gazetteer import normalised
from packs import make_sample
from streams.error_model import SpokenModel
from streams.intake import IntakePack
from streams.pack import load_pack
from streams.pack_entries import Places
from streams.simulated_addresses import SpokenAddresses, numeral
from streams.simulated_chance import Chance
from streams.simulated_city import SimulatedCity, metres

PLAIN = dict.fromkeys(SpokenModel.__struct_fields__, 0.0)


@pytest.fixture(scope="module")
def pack():
    """The sample city, without the names that two places share: those are found only beside others."""
    whole = load_pack(Path(make_sample.__file__).parent / "sample")
    count = Counter(whole.places.names)
    kept = [at for at, name in enumerate(whole.places.names) if count[name] == 1]
    columns = {}
    for column in fields(Places):
        entries = getattr(whole.places, column.name)
        columns[column.name] = entries[kept] if isinstance(entries, np.ndarray) else [entries[at] for at in kept]
    return replace(whole, places=Places(**columns))


@pytest.fixture(scope="module")
def spoken(pack):
    """Two hundred addresses under a model: where they are meant, what is said, and what is wrong with it."""
    city = SimulatedCity(pack, {})

    def some(**shares):
        addresses, chance = SpokenAddresses(city, SpokenModel(**{**PLAIN, **shares})), Chance(1)
        points = [city.anywhere(chance) for _ in range(200)]
        return [(point, *addresses.address(*point, chance)) for point in points]

    return some


@pytest.fixture(scope="module")
def gazetteer(pack):
    return IntakePack(pack).gazetteer


def names_of(pack):
    return {name for place in pack.places for name in (place.name, *place.aliases)}


def test_without_any_habit_an_address_is_the_name_of_a_place_nearby(pack, spoken, gazetteer):
    for (lon, lat), said, wrong in spoken():
        place = gazetteer.place(said, "")
        assert said in names_of(pack)
        assert wrong == ()
        assert metres(lon, lat, place.lon, place.lat) < 500


@pytest.mark.parametrize(
    ("habit", "seen"),
    [
        ({"beside": 1}, lambda said: said[-2:] in ("附近", "对面", "旁边", "门口", "隔壁", "后面", "一点")),
        ({"area_first": 1}, lambda said: "区" in said or "街道" in said),
        ({"house_number": 1, "in_numerals": 1}, lambda said: said.endswith("号") and not any(map(str.isdigit, said))),
        ({"house_number": 1}, lambda said: said.endswith("号") and any(map(str.isdigit, said))),
        ({"house_number": 1, "full_width": 1}, lambda said: any(sign in "０１２３４５６７８９" for sign in said)),
        ({"road_only": 1}, lambda said: said.endswith(("路", "街", "大道"))),
    ],
    ids=["beside", "area first", "numerals", "digits", "full width", "road only"],
)
def test_whatever_the_habit_the_place_is_found_by_its_name(spoken, gazetteer, habit, seen):
    for _, said, _ in spoken(**habit):
        assert seen(said), said
        assert gazetteer.place(said, "") is not None, said


def test_people_use_other_names_where_a_place_has_them(pack, spoken):
    aliases = {alias for place in pack.places for alias in place.aliases}
    assert sum(said in aliases for _, said, _ in spoken(alias=1)) > 50


def test_what_was_misheard_or_nobody_knows_is_found_nowhere(spoken, gazetteer):
    misheard, unknown = spoken(misheard=1), spoken(unknown=1)
    assert {wrong for _, _, wrong in misheard} == {("misheard",)}
    assert {wrong for _, _, wrong in unknown} == {("unknown_place",)}
    lost = Counter(gazetteer.place(said, "") is None for _, said, _ in misheard)
    assert lost[True] > 100, "a part of a name may still be one"
    assert all(gazetteer.place(said, "") is None for _, said, _ in unknown)


def test_a_city_without_names_has_no_addresses(pack):
    bare = SimulatedCity(replace(pack, places=Places()), {})
    assert SpokenAddresses(bare, SpokenModel(**PLAIN)).address(*bare.anywhere(Chance(1)), Chance(1)) == ("", ())


def test_numerals_are_those_that_the_gazetteer_reads():
    for number in range(1, 200):
        assert normalised(f"{numeral(number)}号") == f"{number}号"
