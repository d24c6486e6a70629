"""Signatures of texts: what they see, what they do not see, and that the kernel's ways are only shortcuts."""

from __future__ import annotations

import doctest
import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from geo.place_names import normalised
from streams import signature_kernels as kernels
from streams import signatures as of
from streams.signatures import BITS, LOOKED_AT, NO_TEXT, WORDS, Vocabulary, signatures, similarities, similarity

# Whatever `normalised` or the kernel makes something of, close together; and some that neither knows.
_DELICATE = (
    "路栋幢号楼期元里米公单千一二十百零两万〇○的ab9AＢ５.．-－—–~～'’`#＃*&＆/，。、…"
    "\n\r\t \u3000（)“_·《】%+？éßİﬁ①½\u0301\u200b"
)
delicate = st.text(alphabet=st.sampled_from(_DELICATE), max_size=30)
plain_signs = st.sampled_from(
    [*"枫桥路灯不亮坏了积水井盖幢栋", "12", "7", "5-1", "1.5", "a3", "pothole", "elm", "street", "st", "the"]
)
sentences = st.lists(st.lists(plain_signs, max_size=12).map(" ".join), max_size=12).map("。".join)


def bits_of(signature: np.ndarray) -> list[bool]:
    return [bool(int(signature[bit // 64]) >> (bit % 64) & 1) for bit in range(BITS)]


def plain_signature(text: str, phrases: Sequence[str] = ()) -> list[bool] | None:
    """The signature as it is defined: `normalised`, signs one after the other, votes counted bit by bit."""
    silent = {feature for phrase in phrases for feature, _ in plain_features(phrase)}
    features = [one for one in plain_features(text) if one[0] not in silent]
    if len(features) < 4:
        return None
    total = sum(votes for _, votes in features)
    bits: list[bool] = []
    for bit in range(BITS):
        word, place = divmod(bit, 64)
        cast = [mixed((feature + (word + 1) * 0xD1B54A32D192ED03) % 2**64) >> place & 1 for feature, _ in features]
        count = sum(votes for (_, votes), is_for in zip(features, cast, strict=True) if is_for)
        bits.append(bool(cast[0]) if 2 * count == total else 2 * count > total)
    return bits


def mixed(a: int) -> int:
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        a = (a ^ a >> 33) * factor % 2**64
    return a ^ a >> 33


def plain_features(text: str) -> list[tuple[int, int]]:
    """What has a vote, and how many."""

    def joined(a: int, b: int) -> int:
        return mixed((a * 0x9E3779B97F4A7C15 + b) % 2**64) | 1

    def hash_of(sign: str) -> int:
        if sign in same:
            return joined(3, same[sign])
        if ord(sign[0]) >= 0x2E80:
            return joined(1, ord(sign))
        found = 2
        for character in sign:
            found = joined(found, ord(character))
        return found

    same = {sign: number for number, signs in enumerate(of._SAME) for sign in signs.split()}
    fillers, formulas = set(of._FILLERS.split()), set(of._FORMULAS.split())
    features: list[tuple[int, int]] = []
    seen = 0
    votes_each = [8] * 16 + [4] * 32 + [2] * 64 + [1] * 128
    for part in re.split(r"[\n&]", normalised(text[:LOOKED_AT])):
        before = ""
        for sign in re.findall(r"[0-9a-z.\-]+|[\u4e00-\u9fff]", part):
            if len(re.sub(r"\D", "", sign)) > 6:
                before = ""
                continue
            if sign in fillers:
                continue
            if seen == len(votes_each):
                break
            if len(re.sub("[^a-z]", "", sign)) >= 3 and not re.search("[0-9]", sign) and sign not in same:
                features.append((hash_of(sign), votes_each[seen]))
            if before and before + sign not in formulas:
                features.append((joined(hash_of(before), hash_of(sign)), votes_each[seen]))
            before = sign
            seen += 1
    return features


# ------------------------------------------------------------------------------------------------------ definition


@given(sentences)
@example("路")
@example("枫桥路灯")
@example("枫桥路灯不")
@example("枫桥路灯不亮坏了" * 2)
@example("the pothole the street elm street pothole st street 12 5-1")
@example("枫桥" * 130)
def test_a_signature_is_what_the_votes_say(text):
    """The counts that stand upright, the table of words and the places of votes are only shortcuts."""
    expected = plain_signature(text)
    found = signatures([text])[0]
    if expected is None:
        assert not found.any()
    else:
        assert bits_of(found) == expected


@given(sentences, st.lists(sentences, max_size=3))
@example("枫桥路灯不亮坏了积水", ["路灯不亮", "坏了"])
@example("the elm pothole street elm pothole 12 elm street 7 a3 pothole 5-1", ["Pothole street", "elm"])
@example("枫桥路灯不亮坏了", ["枫桥路灯不亮坏了"])
def test_what_a_city_says_of_all_things_of_a_kind_has_no_vote(text, phrases):
    """A pair or word of a phrase is silent wherever it stands; the sign itself is not, it still makes other pairs."""
    expected = plain_signature(text, phrases)
    found = signatures([text], Vocabulary(phrases))[0]
    if expected is None:
        assert not found.any()
    else:
        assert bits_of(found) == expected


@given(st.lists(delicate | st.text(max_size=30), max_size=5))
@example(
    [
        "二期",
        "A二期",
        "A（二期",
        "3二期",
        "二（期",
        "十二期",
        "二单元",
        "二单位",
        "二单 元",
        "二千米",
        "二",
        "二。期",
        "二公里",
    ]
)
@example(
    [
        "5 - 6",
        "5-6",
        "5--6",
        "5）-6",
        "a - b",
        "a-b",
        "a'-b",
        "5.'3",
        "5.3",
        "5.",
        "St.5",
        "a..b",
        "5~6",
        "it's",
        "5’6",
        "5#",
    ]
)
@example(["\ud800", "一\ud800号", "", "￥５", "５．３", "Ａ－Ｂ", "5 ' - 6", "a.二号", "-5", "b '-5"])
def test_a_text_read_as_it_stands_is_read_as_if_rewritten(texts):
    """Seeing through marks, widths and numerals is a shortcut: the same text, `normalised` first, has the same bits."""
    rewritten = [normalised(text) for text in texts]
    found = np.zeros((len(texts), WORDS), np.uint64)
    characters, ends = of._joined(rewritten)
    told_unusual = np.zeros(len(texts), np.bool_)
    nothing = np.zeros((0, 0), np.uint64)
    kernels.sign_texts(characters, ends, True, Vocabulary().table, np.uint64(0), found, told_unusual, nothing)
    assert not told_unusual.any()
    assert signatures(texts).tolist() == found.tolist()


@given(st.lists(delicate | sentences, max_size=6))
def test_a_signature_depends_on_its_text_alone(texts):
    together = signatures([*texts, None, ""])
    assert together.dtype == np.uint64
    assert together.shape == (len(texts) + 2, WORDS)
    assert not together[-2:].any()
    for text, row in zip(texts, together, strict=False):
        assert signatures([text])[0].tolist() == row.tolist()


@given(st.integers(0, 2**256 - 1), st.integers(0, 2**256 - 1))
@example(0, 1)
@example(1, 0)
@example(0, 0)
@example(2**256 - 1, 1)
def test_similarity_is_how_many_bits_agree(a, b):
    rows = [np.array([one >> 64 * word & 2**64 - 1 for word in range(WORDS)], np.uint64) for one in (a, b)]
    expected = BITS - (a ^ b).bit_count() if a and b else NO_TEXT
    assert similarity(rows[0], rows[1]) == similarity(rows[1], rows[0]) == expected
    assert similarities(np.stack(rows), np.stack(rows[::-1])).tolist() == [expected, expected]


def test_signatures_of_unequal_number_are_not_compared():
    with pytest.raises(ValueError, match="two of one shape"):
        similarities(signatures(["枫桥路"]), signatures(["枫桥路", "鼓楼路"]))


# -------------------------------------------------------------------------------------------------- what they see


@pytest.mark.parametrize(
    ("one", "other"),
    [("枫桥路12号路灯不亮", "枫桥路１２号路灯不亮"),
     ("枫桥路12号路灯不亮", "枫桥路十二号路灯不亮"),
     ("枫桥路12号路灯不亮", "“枫桥路”(12号) 路灯不亮！！"),
     ("枫桥小学三号楼漏水", "枫桥小学3号楼漏水"),
     ("枫桥花园5幢电梯坏了", "枫桥花园5栋电梯坏了"),
     ("Deep POTHOLE on Elm Street, Brighton", "deep pothole on elm st., Brighton"),
     ("Main St & Elm Ave, Lower Mills, Dorchester", "Main Street & Elm Avenue, Lower Mills, Dorchester"),
     ("枫桥路灯杆旁的井盖坏了，联系电话13812345678", "枫桥路灯杆旁的井盖坏了，联系电话138****5678"),
     ("枫桥路灯杆旁的井盖坏了。13812345678", "枫桥路灯杆旁的井盖坏了")],
)  # fmt: skip
def test_one_thing_written_in_two_ways_has_one_signature(one, other):
    a, b = signatures([one, other])
    assert similarity(a, b) == BITS


@pytest.mark.parametrize(
    ("text", "like", "unlike"),
    [("枫桥路12号路灯不亮", "您好，请问枫桥路12号的路灯什么时候能修好", "人民公园里垃圾成堆，臭气熏天"),
     ("枫桥路12号路灯不亮", "路灯不亮，枫桥路12号", "鼓楼街3号路灯很亮"),
     ("Big pothole at 12 Elm Street", "there is a pothole in front of 12 Elm St", "Street light out at 98 Oak Avenue"),
     ("茶场村五组什么时候拆迁？", "咨询茶场村五组的拆迁规划", "请问地铁六号线什么时候开通？")],
)  # fmt: skip
def test_texts_of_one_event_are_more_alike_than_others(text, like, unlike):
    a, b, c = signatures([text, like, unlike])
    assert similarity(a, b) > similarity(a, c)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "路",
        "。。。",
        "谢谢！",
        "您好",
        "13812345678",
        "please fix this",
        "12",
        "路灯不亮",
        "😀😀",
        "\n\n",
    ],
)
def test_a_text_in_which_nothing_can_be_compared_has_no_signature(text):
    assert not signatures([text]).any()
    assert similarity(signatures([text])[0], signatures(["枫桥路12号路灯不亮"])[0]) == NO_TEXT


def test_a_text_that_only_names_a_category_has_no_signature():
    text = "非机动车乱停放,请尽快处理。联系电话15400075781。"
    assert not signatures([text], Vocabulary(["非机动车乱停放"])).any()


def test_names_of_categories_make_two_texts_no_more_alike():
    said = ["枫桥路12号路灯不亮，杆子歪了", "鼓楼街小学门前路灯不亮，有人摔倒"]
    a, b = signatures(said)
    c, d = signatures(said, Vocabulary(["路灯不亮"]))
    assert similarity(a, b) > similarity(c, d)


def test_what_is_said_first_counts_most():
    first, other = "枫桥路十字路口东南角井盖丢失多日", "鼓楼街幼儿园门前路灯整夜都没有亮"
    story, another = "昨天晚上下了大雨行人都无法通过呢", "希望派人来看究竟怎么回事才放心吧"
    a, b, c = signatures([f"{first}。{story}", f"{first}。{another}", f"{other}。{story}"])
    assert similarity(a, b) > similarity(a, c)


def test_only_the_beginning_is_read():
    text = "枫桥路十字路口东南角井盖丢失多日无人管" * 40
    assert signatures([text[:LOOKED_AT] + "完全不同的结尾"])[0].tolist() == signatures([text])[0].tolist()


def test_another_salt_is_another_signature():
    text = "枫桥路12号路灯不亮"
    a, b = signatures([text])[0], signatures([text], salt=1)[0]
    assert 64 < similarity(a, b) < 192


def test_no_text_at_all_is_no_row():
    assert signatures([]).shape == (0, WORDS)


def test_more_agreement_is_never_less_evidence():
    worth = of.evidence()
    assert worth.shape == (BITS + 1,)
    assert (np.diff(worth) >= 0).all()


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(of).failed == 0
