"""No number of a person leaves: callers are keyed hashes, numbers in texts are masked, and a cut lets none through."""

from __future__ import annotations

import json
import re

import pytest
from city_scenario import KEY, at_ms, make_pack
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sinks.files import FileSink
from streams.dead_letters import DeadLetter
from streams.messages import Reason
from streams.privacy import CallerHasher, mask_beginning, mask_text
from streams.recording import RecordedMessage
from streams.replay import Replay

PACK = make_pack()
WIDE = str.maketrans("0123456789", "".join(chr(0xFF10 + digit) for digit in range(10)))

digits = st.text("0123456789", min_size=8, max_size=8)
mobiles = st.builds(lambda second, rest: f"1{second}{rest}7", st.sampled_from("3456789"), digits)


@st.composite
def spellings(draw: st.DrawFn, number: str) -> str:
    """One mobile number as people write it."""
    grouped = draw(st.sampled_from(["{}{}{}", "{} {} {}", "{}-{}-{}", "{}–{}–{}", "{} {}{}"]))
    text = grouped.format(number[:3], number[3:7], number[7:])
    text = draw(st.sampled_from(["", "+86", "+86 ", "86-", "86", "0086", "0086 ", "+86-"])) + text
    return text.translate(WIDE) if draw(st.booleans()) else text


@st.composite
def secrets(draw: st.DrawFn) -> tuple[str, str]:
    """Something that must not survive, as it is written and as the digits and letters that name its owner."""
    kind = draw(st.sampled_from(["mobile", "landline", "local", "card", "old card", "plate", "green plate"]))
    eight = draw(digits)
    if kind == "mobile":
        number = draw(mobiles)
        return draw(spellings(number)), number
    if kind == "landline":
        area = draw(st.sampled_from(["010", "0354", "0794"]))
        local = draw(st.sampled_from(["2", "8"])) + eight[: 7 if area == "010" else 6]
        return draw(st.sampled_from(["{}-{}", "{}{}", "({}){}", "（{}）{}", "{} {}"])).format(area, local), area + local
    if kind == "local":
        return f"2{eight}", f"2{eight}"
    if kind == "card":
        card = f"140302{draw(st.integers(1930, 2020))}0{draw(st.integers(1, 9))}2{eight[0]}{eight[1:4]}"
        return (card + draw(st.sampled_from("0123456789Xx")),) * 2
    if kind == "old card":
        return (f"1403028001{draw(st.integers(10, 28))}{eight[:3]}",) * 2
    letters = draw(st.text("ABCDEFGHJKLMNPQRSTUVWXYZ0123456789", min_size=3, max_size=3))
    plate = f"{draw(st.sampled_from('晋赣京'))}C" + ("D" if kind == "green plate" else "") + letters + eight[:2]
    spelt = draw(st.sampled_from([plate, plate[:2] + "·" + plate[2:], plate.lower(), plate[:2] + " " + plate[2:]]))
    return spelt, plate


words = st.sampled_from(
    ["", "电话", "请联系", "，", " ", "车牌:", "号", "at ", "栋3单元", "Main St. ", "。", "😀", "说"]
)


def shows(shown: str, secret: str) -> bool:
    """Whether more of the secret can be read than the `138****5678` of the contract, however it is spaced."""
    run = re.sub(r"[\s().·\u2010-\u2015-]", "", shown.upper())
    return any(secret[start : start + 8] in run for start in range(max(1, len(secret) - 7)))


@given(st.lists(st.tuples(words, secrets()), min_size=1, max_size=4), words)
@example([("", ("008613812345678", "13812345678"))], "")
def test_no_number_of_a_text_survives_masking(parts, end):
    text = "".join(f"{before} {spelt}," for before, (spelt, _) in parts) + end
    masked = mask_text(text)
    for _, (_, secret) in parts:
        assert not shows(masked, secret), masked


@pytest.mark.parametrize(
    "text",
    [
        "文化路123号3栋2单元501室",
        "119.9501095, 38.7552243",
        "2026-08-01T10:00:00Z",
        "200 Boylston St, MA 02116",
        "第12345号",
    ],
)
def test_what_is_no_number_of_a_person_is_left_alone(text):
    assert mask_text(text) == text


def test_masking_twice_is_masking_once():
    once = mask_text("联系13812345678,0354-2293456,车牌晋C12345,证140302198001011234")
    assert mask_text(once) == once


@given(st.integers(0, 80), secrets(), st.sampled_from(["说", "a ", "1 "]), st.integers(0, 60))
def test_a_cut_in_the_middle_of_a_number_shows_no_half_of_it(length, secret, filler, before):
    spelt, name = secret
    text = filler * before + spelt
    assert not shows(mask_beginning(text, length), name)
    for cut in range(len(text)):
        assert not shows(mask_beginning(text[:cut], length, is_cut=True), name)


def test_a_text_is_cut_to_its_length():
    assert len(mask_beginning("说" * 3000, 500)) == 500
    assert mask_beginning("short", 500) == "short"


# ------------------------------------------------------------------------------------------------------------ callers


@given(mobiles, st.data())
def test_one_number_in_any_spelling_is_one_caller(number, data):
    hasher = CallerHasher(KEY)
    spelt = data.draw(spellings(number))
    assert hasher.hash(spelt) == hasher.hash(number)
    assert number not in hasher.hash(spelt)


@pytest.mark.parametrize(
    "spelt", ["(0354) 229-3456", "+86 354 2293456", "0354-2293456", "tel:+86-354-2293456", "０３５４２２９３４５６"]
)
def test_one_landline_in_any_spelling_is_one_caller(spelt):
    assert CallerHasher(KEY).hash(spelt) == CallerHasher(KEY).hash("03542293456")


@pytest.mark.parametrize(
    ("one", "other"),
    [("13812345678", "13812345679"), ("WX-1", "QQ-1"), ("用户7", "网友7"), ("13812345678", "13812345678转1")],
)
def test_different_callers_stay_different(one, other):
    assert CallerHasher(KEY).hash(one) != CallerHasher(KEY).hash(other)


def test_a_hash_without_its_key_cannot_be_made():
    with pytest.raises(ValueError, match="key for caller hashes is empty"):
        CallerHasher(b"")
    assert CallerHasher(b"one").hash("13812345678") != CallerHasher(b"another").hash("13812345678")


# --------------------------------------------------------------------------------------------------------- end to end


def dead(value: bytes) -> str:
    letter = DeadLetter("hotline.tickets", 0, 0, 0, None, value, Reason.WRONG_TYPE, None, "13812345678", 0)
    assert b"13812345678" not in b"".join(data for _, data in letter.headers())
    return letter.record().excerpt


@given(secrets(), st.integers(0, 420), st.booleans(), st.sampled_from(["text", "caller", "Caller"]))
@example(("13812345678", "13812345678"), 0, True, "text")
def test_no_excerpt_shows_a_number_wherever_it_is_cut_and_however_escaped(secret, before, is_ascii, field):
    """`手机号13812345678` in ASCII is `\\u624b\\u673a\\u53f713812345678`: the digits join those of the escape."""
    spelt, name = secret
    value = json.dumps({"pad": "说" * before, field: "手机号" + spelt}, ensure_ascii=is_ascii).encode()
    assert not shows(dead(value), name)
    assert not shows(dead(value[:-4]), name)
    assert not shows(dead(value.decode().encode("utf-16")), name)


@pytest.mark.parametrize("tail", range(12))
def test_an_excerpt_of_a_value_cut_at_the_end_of_what_is_looked_at_shows_no_half_number(tail):
    value = b'{"text":"' + b"\\u8bf4" * 530 + b"x" * (11 - tail) + b"13812345678" + b"9" * 4000
    assert not shows(dead(value), "13812345678")


@pytest.mark.parametrize("caller", ['"12"', "12", '"张三"', '"a\\"12', '{"tel":"12"}'])
def test_an_excerpt_shows_nothing_of_a_caller(caller):
    excerpt = dead(f'{{"caller" : {caller}, "id": "x"}}'.encode())
    assert "12" not in excerpt
    assert "张三" not in excerpt


SECRET = "张三丰"
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text('ab 说,:"\\\n{}[]', max_size=6)
)
names = st.text('abcdeflr:"', max_size=8)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6
)
secretive = st.recursive(
    st.builds(
        lambda before, after: before + SECRET + after, st.text('a1,"\\:}说', max_size=4), st.text('a,"}', max_size=4)
    ),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(names | st.just(SECRET), inner, min_size=1, max_size=3)
    ),
    max_leaves=4,
)
callers = st.lists(st.booleans(), min_size=6, max_size=6).map(
    lambda capital: "".join(c.upper() if up else c for c, up in zip("caller", capital, strict=True))
)


@st.composite
def callers_tickets(draw: st.DrawFn) -> str:
    """JSON with callers of any kind at some depths, its escapes chosen freely, perhaps written twice."""

    def objects(depth: int) -> dict[str, object]:
        made = draw(st.dictionaries(names, anything, max_size=3)) | {draw(callers): draw(secretive)}
        made |= draw(st.dictionaries(names, anything, max_size=2))
        if depth:
            made[draw(names)] = draw(st.sampled_from([lambda inner: inner, lambda inner: [inner]]))(objects(depth - 1))
        return made

    whole = json.dumps(
        objects(draw(st.integers(0, 2))), ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1]))
    )
    if draw(st.booleans()):
        which = draw(st.sets(st.integers(0, 5)))
        escaped = "".join(f"\\u{ord(c):04x}" if at in which else c for at, c in enumerate("caller"))
        whole = whole.replace("caller", escaped)
    return json.dumps({"data": whole}) if draw(st.integers(0, 3)) == 0 else whole


@settings(max_examples=300)
@given(callers_tickets(), st.integers(0, 3300), st.data())
@example('{"c\\u0061ller": "张三丰"}', 0, None)
@example('{"caller": ["a", "张三丰"], "id": "x"}', 0, None)
@example('{"caller": {"a": {}, "name": "张三丰"}}', 0, None)
@example('{"text": "the caller=", "caller": "张三丰", "x": "', 0, None)
@example('"{\\"caller\\": \\"张三丰\\"}"', 0, None)
def test_no_caller_of_any_kind_shows_in_an_excerpt_whole_or_cut(ticket, before, data):
    """`before`: what is looked at may end anywhere in it, as may what was sent."""
    value = (" " * before + ticket).encode()
    cuts = range(len(value) + 1) if data is None else [len(value), data.draw(st.integers(0, len(value)))]
    for cut in cuts:
        assert not set(SECRET) & set(dead(value[:cut])), value[:cut]


def test_what_else_a_ticket_says_is_still_shown():
    ticket = {"id": "T1", "caller": {"name": SECRET}, "text": "积水"}
    assert dead(json.dumps(ticket).encode()) == '{"id": "T1", "caller": "****", "text": "积水"}'
    assert dead(b'{"id":"T1","caller":"WX-1","text":"a') == '{"id":"T1","caller":"****","text":"'


def test_no_number_reaches_any_file_of_a_replay(tmp_path):
    """Tickets full of numbers: good ones, refused ones of every kind, one that is not JSON."""
    numbers = ["13812345678", "140302198001011234", "03542293456"]
    full = "手机13812345678 证140302198001011234 座机0354-2293456 牌晋C12345"
    good = {
        "id": "t",
        "time": at_ms("00:00"),
        "category": "井盖",
        "text": full,
        "address": full,
        "caller": "138 1234 5678",
    }
    tickets = [
        good | {"id": "1", "lon": 0.001, "lat": 0.001},
        good | {"id": "2"},
        good | {"id": "3", "category": full},
        good | {"id": "4", "crs": "x" * 50 + full},
        good | {"id": "5", "lon": 80, "lat": 1},
        good | {"id": "6", "caller": 13812345678},
        good | {"id": "7", "lat": "13812345678", "lon": 1},
        good | {"id": "8", "time": full},
        {"caller": "13812345678" * 3, "text": full},
    ]
    values = [json.dumps(ticket, ensure_ascii=number % 2 == 0).encode() for number, ticket in enumerate(tickets)]
    values.append(values[0][:-30])
    values.append(b"[" + b",".join(values[:6]) + b"]")
    run = Replay(PACK, KEY)
    with FileSink(tmp_path) as sink:
        records = [RecordedMessage("hotline.tickets", value, timestamp_ms=at_ms("00:01")) for value in values]
        assignments, dead_letters = run.take(records)
        sink.write(assignments, run.incidents(), [letter.record() for letter in dead_letters])
        sink.close(run.counts.summary(len(run.incidents()), 1.0))
    assert len(assignments) == 4
    assert len(dead_letters) == 12
    for file in tmp_path.iterdir():
        written = file.read_text()
        for number in [*numbers, "C12345"]:
            assert not shows(written, number), f"{number} in {file.name}"
