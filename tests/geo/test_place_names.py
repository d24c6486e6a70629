"""Names in running text: one written form on both sides, and the leftmost, longest name against its definition."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from geo import place_names
from geo.place_names import PlaceNames, is_findable, normalised

NUMERALS = "零〇○一二三四五六七八九十百千万两"


def found(names: list[str], text: str) -> list[str]:
    """The names found in a text, as they stand in it once normalised."""
    index = PlaceNames()
    for name in names:
        index.add(name)
    plain = normalised(text)
    return [plain[one.start : one.end] for one in index.find(plain)]


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(place_names).failed == 0


# ------------------------------------------------------------------------------------------------ written forms


@pytest.mark.parametrize(
    "text",
    ["鼓楼路12号", "鼓楼路十二号", "鼓楼路１２号", "鼓楼路 12 号", "鼓楼路一二号", "鼓楼路⑫号", "鼓楼路12#",
     "“鼓楼路”（12号）", "\u3000鼓楼路—12号", "鼓楼路·12号"],
)  # fmt: skip
def test_one_house_is_written_in_many_ways(text):
    assert normalised(text) == "鼓楼路12号"


@pytest.mark.parametrize(
    ("numeral", "number"),
    [("三", "3"), ("十", "10"), ("十五", "15"), ("二十", "20"), ("九十九", "99"), ("一百", "100"), ("百", "100"),
     ("一百零八", "108"), ("一百一十", "110"), ("二百三十五", "235"), ("两百", "200"),
     ("二〇三", "203"), ("零三", "03")],
)  # fmt: skip
def test_a_numeral_before_a_counter_is_written_in_digits(numeral, number):
    assert normalised(f"{numeral}号楼") == f"{number}号楼"


@pytest.mark.parametrize(
    "name", ["五一路", "八一街", "三里屯", "十五里桥", "二十三四号", "一百二号", "千二百号", "3二十号", "七一八一路口"]
)
def test_what_counts_nothing_and_what_is_no_one_number_stays_as_it_is(name):
    """五一路 is a street and 51路 a bus; whether 一百二 is 102 or 120 nobody knows."""
    assert normalised(name) == name


def test_marks_part_names_and_fillers_do_not():
    assert normalised("新华，路口；书院 里\n鼓楼(坪)") == "新华\n路口\n书院里\n鼓楼坪"
    assert normalised("5-1号 12.5米 5 — 7号") == "5-1号12.5米5-7号"
    assert normalised("St. Mary's, Corey St & O’Brien Rd - West End") == "st marys\ncorey st&obrien rd west end"


CHARACTERS = st.sampled_from("路街村号楼一二五十百里屯鼓海淀aBk1209Ｂ９ -·.，()（）'#&é")
NAMES = st.text(CHARACTERS, min_size=1, max_size=8)


@given(
    NAMES.filter(lambda name: is_findable(normalised(name))),
    st.sampled_from(["", "在", "地址：", "（", "市民反映 ", "，", "\n", "冠山镇", "请到 "]),
    st.sampled_from(["", "附近", "对面", "，", "。", "）", " 门口", "的树倒了", "\n", "、"]),
)
@example("五一路", "在", "附近")
@example("云汀二中", "市民反映 ", "对面")
@example("八一中路", "在", "")
@example("Ａ座", "请到 ", " 门口")
@example("望岫新城三期(北区)", "（", "）")
def test_what_is_made_of_a_name_is_made_of_it_in_a_text(name, before, after):
    plain, there = normalised(name), normalised(before + name + after)
    assert plain in there


# ---------------------------------------------------------------------------------------------- what is no name


@pytest.mark.parametrize(
    "name", ["", " ", "桥", "。", "110", "13812345678", "五一", "3号", "十二号楼", "2-1-301室", "3#"]
)
def test_a_single_character_and_a_mere_number_are_never_looked_for(name):
    assert PlaceNames().add(name) == -1
    assert found([name], f"在{name}附近") == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("1号楼西", "11号楼西"),
        ("12号院子", "鼓楼路112号院子"),
        ("1号楼西", "5-1号楼西"),
        ("鼓楼路12", "鼓楼路120号"),
        ("Park", "Parker House"),
        ("Main St", "Main Street East"),
        ("Main St", "Romain St"),
        ("9 Lorraine St", "39 Lorraine St"),
        ("9 Lorraine St", "37-9 Lorraine St"),
        ("a1座", "ka1座"),
        ("五里桥", "十五里桥"),
        ("双十", "双十一"),
        ("5678超市", "13812345678超市"),
        ("2345超市", "晋C12345超市"),
    ],
)
def test_no_name_begins_or_ends_within_a_word_or_a_number(name, text):
    assert found([name], text) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Main St", "12 MAIN ST., Boston"),
        ("Corey St & Lagrange St", "INTERSECTION of Corey St & Lagrange St West Roxbury MA"),
        ("五一路", "13812345678五一路"),
        ("A座", "长风公寓A座301"),
        ("K3小区", "在K3小区旁"),
        ("三号桥", "3号桥"),
        ("第12中学", "第十二中学门口"),
        ("Straße am Park", "STRASSE AM PARK 5"),
    ],
)
def test_a_name_that_stands_by_itself_is_found(name, text):
    assert found([name], text) == [normalised(name)]


# ---------------------------------------------------------------------------------------------- leftmost, longest


def cuts_a_word(plain: str, at: int) -> bool:
    def kind(sign: str) -> str:
        if sign in NUMERALS:
            return "numeral"
        return "word" if sign in "-." or (sign.isalnum() and sign < "\u2e80") else ""

    return 0 < at < len(plain) and kind(plain[at - 1]) == kind(plain[at]) != ""


def leftmost_longest(names: list[str], text: str) -> list[str]:
    """The definition: at each place try every name."""
    plain = normalised(text)
    forms = [normalised(name) for name in names]
    at, those = 0, []
    while at < len(plain):
        here = [
            form
            for form in forms
            if is_findable(form)
            and plain.startswith(form, at)
            and not cuts_a_word(plain, at)
            and not cuts_a_word(plain, at + len(form))
        ]
        if here:
            those.append(max(here, key=len))
            at += len(those[-1])
        else:
            at += 1
    return those


@given(
    st.lists(st.text(st.sampled_from("路街里ab12一号- "), min_size=1, max_size=5), max_size=8),
    st.text(st.sampled_from("路街里ab12一号- ，"), max_size=24),
)
@example(["人民路", "人民路小学"], "人民路小学旁的人民路小")
@example(["里路里街", "路街"], "里路街")  # the beginning of a longer name hides no shorter one
@example(["街里a", "街里"], "街里")  # nor does it at the end of the text, as pyahocorasick's iter_long has it
@example(["路里", "里街里街"], "路里街里街")  # of two that overlap the leftmost, though the other is longer
@example(["a路1", "a路"], "a路12")  # the longer one would end within a number
def test_names_are_found_as_defined(names, text):
    assert found(names, text) == leftmost_longest(names, text)


def test_a_name_has_one_number_however_it_is_written():
    index = PlaceNames()
    assert [index.add(name) for name in ("鼓楼路12号", "书院里", "鼓楼路十二号", "鼓楼路１２号", "书院 里")] == [
        0,
        1,
        0,
        0,
        1,
    ]
    assert len(index) == 2
    assert index.longest == 6


def test_finding_names_costs_the_same_among_many():
    """A hundred thousand names: each is found, and nothing else is."""
    index = PlaceNames()
    names = [f"{chr(0x4E00 + n % 317)}{chr(0x5500 + n // 317)}路{n % 97}号" for n in range(100_000)]
    numbers = [index.add(name) for name in names]
    assert numbers == list(range(100_000))
    for number in range(0, 100_000, 997):
        (one,) = index.find(normalised(f"请到{names[number]}的门口"))
        assert one.number == number
