"""Signatures of texts: 256 bits a report, of which the more agree the more alike the texts are.

A signature is made at intake, of one text alone: no dictionary, no counts of other texts, so the same text has the same
signature everywhere and always.  It is a simhash: every pair of neighbouring signs of the text votes for or against each
bit, by the bits of its hash.  What tells texts of one event from others is what decides the votes:

- **What is said first counts most**: title, place and complaint come before the story.  The first 16 signs have 8 votes
  each, the next 32 have 4, then 64 have 2 and 128 have 1; no more is read.
- **Formulas have no vote**: 您好, 请尽快处理, "please fix".  They are in every message.
- **A sign** is a Chinese character, or a whole word or number of the scripts that put blanks between words; a word of
  letters votes by itself, too.  Pairs do not reach over a punctuation mark.
- **One written form**: `geo.place_names.normalised` (width, case, blanks, numerals before what is counted); then
  幢 is 栋 and "Street" is "St".  Telephone and identity numbers, masked or not, are left out.

`benchmarks/quality_text.py` measures what that is worth.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from geo.place_names import normalised

WORDS: Final = 4
"""64-bit words of a signature."""
BITS: Final = 64 * WORDS

NO_TEXT: Final = -1
"""Similarity where either report has no usable text: nothing is known."""

Signatures = npt.NDArray[np.uint64]

LOOKED_AT: Final = 600
"""Characters of a text that are looked at: more than 240 signs have, but where they are long words."""

_VOTES_BITS: Final = 3
_FIRST: Final = 16
_MOST_SIGNS: Final = 240
"""Signs that have votes: 16 with 8, 32 with 4, 64 with 2, 128 with 1."""
_PLANES: Final = 11
"""Binary places of a count of votes: a sign has at most two features, so there are at most 1,024 votes."""
_LONGEST_NUMBER: Final = 6
"""Digits of a number that may be a house, a bus or a year; more are a telephone's, an account's or a person's."""
_SHORTEST_WORD: Final = 3

_FORMULAS: Final = """
    尊敬 您好 你好 领导 书记 局长 市长 县长 同志 请问 咨询 反映 反应 投诉 举报 建议 希望 恳请 请求 谢谢 感谢 此致 敬礼 我们 本人 居民
    业主 市民 百姓 老百 群众 政府 部门 有关 相关 问题 情况 解决 处理 严重 影响 小区 多次 至今 一直 什么 时候 何时 能否 是否 可以 没有
    现在 已经 因为 所以 但是 如果 以及 关于 对于 进行 造成 导致 无法 不能 应该 需要 为什 怎么 如何 这个 那个 这样 这些 他们 自己 大家
    全体 广大 各位 尽快 尽早 帮助 回复 答复 重视 了解 一个 我是 就是 不是 还是 还有 目前 其他 时间 今年 去年 年月 月日 不知 知道 生活
    正常 要求 工作 人员 请尽 快处
"""
"""Pairs of characters without a vote."""
_FILLERS: Final = """
    a an the this that these those there here it its is are was were be been being am has have had do does did not no
    and or but if so as at by for from in into of off on onto out over to up with about after before between near
    i me my we our us you your he she they them their who what when where which why how can could will would should may
    please thanks thank hello hi dear sir madam report reported reporting request requested complaint issue problem
    fix fixed repair need needs needed city department intersection corner
"""
"""Words that are not seen at all."""
_SAME: Final = {
    "st": "street str", "ave": "avenue av aven", "rd": "road", "blvd": "boulevard boul blv", "dr": "drive drv",
    "ln": "lane", "pl": "place", "ct": "court crt", "sq": "square", "pkwy": "parkway pky pkw", "hwy": "highway",
    "ter": "terrace terr", "cir": "circle circ", "expy": "expressway expwy", "aly": "alley", "apt": "apartment flat",
    "n": "north", "s": "south", "e": "east", "w": "west", "mt": "mount", "栋": "幢 座", "号": "號", "楼": "樓",
}  # fmt: skip
"""Signs that mean the same: what each is written as, and its other forms."""

_TABLE_BITS: Final = 11

F = TypeVar("F")


def _jit(function: F) -> F:
    compiled: Any = numba.njit(cache=True, nogil=True, error_model="numpy")
    return cast(F, compiled(function))


def signatures(texts: Sequence[str | None]) -> Signatures:
    """The signature of each text.

    Parameters
    ----------
    texts : sequence of (str or None), length n
        What a report says, what matters most first.  The first `LOOKED_AT` characters are read.

    Returns
    -------
    uint64 array, shape (n, WORDS)
        A row of zeros for a text in which nothing can be compared: none, or too few signs, or formulas only.

    Notes
    -----
    Integer arithmetic throughout: the same text has the same signature on every machine.

    >>> a, b, c = signatures(["枫桥路12号路灯不亮", "您好，枫桥路１２号的路灯不亮", "人民公园垃圾成堆"])
    >>> similarity(a, b) > similarity(a, c), similarity(a, a), similarity(a, signatures(["谢谢！"])[0])
    (True, 256, -1)
    """
    found = np.zeros((len(texts), WORDS), np.uint64)
    plain = [normalised(text[:LOOKED_AT]).encode("utf-32-le") if text else b"" for text in texts]
    ends = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) // 4 for text in plain], out=ends[1:])
    _sign(np.frombuffer(b"".join(plain), np.uint32), ends, _TABLE, found)
    return found


def similarity(a: Signatures, b: Signatures) -> int:
    """How many bits of two signatures agree: 0 to `BITS`, half of them by chance; `NO_TEXT` if either has none."""
    return int(similarities(a.reshape(1, WORDS), b.reshape(1, WORDS))[0])


def similarities(a: Signatures, b: Signatures) -> npt.NDArray[np.int32]:
    """`similarity` row by row of two arrays of one shape (n, WORDS)."""
    if a.shape != b.shape or a.ndim != 2 or a.shape[1] != WORDS:
        raise ValueError(f"signatures of shapes {a.shape} and {b.shape}; two of one shape (n, {WORDS}) are compared")
    found = np.empty(len(a), np.int32)
    _compare(np.ascontiguousarray(a), np.ascontiguousarray(b), found)
    return found


# ---------------------------------------------------------------------------------------------------------- kernels


@_jit
def _mixed(a: Any) -> Any:
    a ^= a >> np.uint64(33)
    a *= np.uint64(0xFF51AFD7ED558CCD)
    a ^= a >> np.uint64(33)
    a *= np.uint64(0xC4CEB9FE1A85EC53)
    a ^= a >> np.uint64(33)
    return a


@_jit
def _joined(a: Any, b: Any) -> Any:
    """The hash of two things in this order; never 0, which says that there is none."""
    return _mixed(a * np.uint64(0x9E3779B97F4A7C15) + b) | np.uint64(1)


@_jit
def _agreeing(a: Any, b: Any) -> Any:
    differing = np.uint64(0)
    any_a = any_b = np.uint64(0)
    for word in range(WORDS):
        any_a |= a[word]
        any_b |= b[word]
        x = a[word] ^ b[word]
        x -= (x >> np.uint64(1)) & np.uint64(0x5555555555555555)
        x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
        x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
        differing += (x * np.uint64(0x0101010101010101)) >> np.uint64(56)
    if any_a == np.uint64(0) or any_b == np.uint64(0):
        return np.int32(NO_TEXT)
    return np.int32(BITS - np.int64(differing))


@_jit
def _compare(a: Any, b: Any, found: Any) -> None:
    for row in range(len(a)):
        found[row] = _agreeing(a[row], b[row])


@_jit
def _looked_up(key: Any, table: Any) -> Any:
    """What stands in the table for a hash: itself if nothing does."""
    mask = np.uint64(len(table) - 1)
    at = key & mask
    # The lowest bit of every hash is 1.
    at = (key >> np.uint64(1)) & mask
    while table[at, 0] != np.uint64(0):
        if table[at, 0] == key:
            return table[at, 1]
        at = (at + np.uint64(1)) & mask
    return key


@_jit
def _is_apart(sign: Any) -> Any:
    """Whether a sign is a word by itself: Chinese characters, kana, Hangul."""
    return sign >= 0x2E80


@_jit
def _is_mark(sign: Any) -> Any:
    """Marks, spaces and pictures, which are no part of any word."""
    return (
        sign <= 0x29 or sign in (0x2B, 0x2C, 0x2F) or 0x3A <= sign <= 0x60 or 0x7B <= sign <= 0xBF
        or 0x2000 <= sign < 0x2E80 or 0x3000 <= sign < 0x3004 or 0x3008 <= sign < 0x3021
        or 0xE000 <= sign < 0xF900 or 0xFE00 <= sign < 0xFE70 or 0xFF00 <= sign < 0xFF66 or 0x1F000 <= sign < 0x20000
    )  # fmt: skip


@_jit
def _sign_at(text: Any, start: Any, end: Any, told: Any) -> Any:
    """The end of the sign that starts here; ``told`` gets its hash (0: none) and whether it is a word of letters."""
    first = text[start]
    told[0] = np.uint64(0)
    told[1] = np.uint64(0)
    if _is_mark(first):
        return start + 1
    if _is_apart(first):
        told[0] = _joined(np.uint64(1), np.uint64(first))
        return start + 1
    at = start
    key = np.uint64(2)
    digits = others = 0
    masked = False
    while at < end and not _is_mark(text[at]) and not _is_apart(text[at]):
        sign = text[at]
        if 0x30 <= sign <= 0x39:
            digits += 1
        elif sign == 0x2A:
            masked = True
        elif sign not in (0x2D, 0x2E):
            others += 1
        key = _joined(key, np.uint64(sign))
        at += 1
    if masked or digits > _LONGEST_NUMBER or digits + others == 0:
        return at
    told[0] = key
    told[1] = np.uint64(digits == 0 and others >= _SHORTEST_WORD)
    return at


@_jit
def _vote(feature: Any, plane: Any, planes: Any, first: Any, is_first: Any) -> None:
    """Add 2**plane votes of a feature to each bit's count; the counts stand upright, a binary place a plane."""
    for word in range(WORDS):
        carry = _mixed(feature + np.uint64(word + 1) * np.uint64(0xD1B54A32D192ED03))
        if is_first:
            first[word] = carry
        for at in range(plane, _PLANES):
            if carry == np.uint64(0):
                break
            both = planes[at, word] & carry
            planes[at, word] ^= carry
            carry = both


@_jit
def _sign(text: Any, ends: Any, table: Any, found: Any) -> None:
    planes = np.zeros((_PLANES, WORDS), np.uint64)
    first = np.zeros(WORDS, np.uint64)
    told = np.zeros(2, np.uint64)
    for row in range(len(ends) - 1):
        planes[:] = np.uint64(0)
        votes = np.int64(0)
        before = np.uint64(0)
        at = ends[row]
        end = ends[row + 1]
        seen = 0
        plane = _VOTES_BITS
        left = _FIRST
        while at < end and seen < _MOST_SIGNS:
            start = at
            at = _sign_at(text, at, end, told)
            key = told[0]
            if key == np.uint64(0):
                # A blank between two words belongs to neither; anything else ends what can be a pair.
                if text[start] != 0x20:
                    before = np.uint64(0)
                continue
            key = _looked_up(key, table)
            if key == np.uint64(0):
                continue
            if told[1] != np.uint64(0):
                _vote(key, plane, planes, first, votes == 0)
                votes += np.int64(1) << plane
            if before != np.uint64(0):
                pair = _looked_up(_joined(before, key), table)
                if pair != np.uint64(0):
                    _vote(pair, plane, planes, first, votes == 0)
                    votes += np.int64(1) << plane
            before = key
            seen += 1
            left -= 1
            if left == 0 and plane > 0:
                plane -= 1
                left = _FIRST << (_VOTES_BITS - plane)
        if votes == 0:
            continue
        half = votes >> 1
        for word in range(WORDS):
            more = np.uint64(0)
            equal = ~np.uint64(0)
            for place in range(_PLANES - 1, -1, -1):
                if (half >> place) & 1:
                    equal &= planes[place, word]
                else:
                    more |= equal & planes[place, word]
                    equal &= ~planes[place, word]
            # A draw is decided by what was said first; were it always 0, short texts would all be alike.
            if votes & 1 == 0:
                more |= equal & first[word]
            found[row, word] = more


# ---------------------------------------------------------------------------------------------------------- its words


def _hash_of(sign: str) -> np.uint64:
    told = np.zeros(2, np.uint64)
    text = np.frombuffer(sign.encode("utf-32-le"), np.uint32)
    end = _sign_at(text, np.int64(0), np.int64(len(text)), told)
    assert end == len(text), f"{sign!r} is one sign"
    assert told[0], f"{sign!r} can be compared"
    return cast(np.uint64, told[0])


def _table(entries: Iterable[tuple[np.uint64, np.uint64]]) -> npt.NDArray[np.uint64]:
    """Open addressing: (hash, what it is taken for; 0 = it is not seen)."""
    table = np.zeros((1 << _TABLE_BITS, 2), np.uint64)
    mask = len(table) - 1
    for key, meaning in entries:
        at = (int(key) >> 1) & mask
        while table[at, 0] not in (0, key):
            at = (at + 1) & mask
        table[at] = key, meaning
    assert 2 * np.count_nonzero(table[:, 0]) < len(table), "half of the table stays free"
    return table


def _language() -> npt.NDArray[np.uint64]:
    none = np.uint64(0)
    same = {other: sign for sign, others in _SAME.items() for other in others.split()}
    entries = [(_hash_of(other), _hash_of(sign)) for other, sign in same.items()]
    entries += [(_hash_of(word), none) for word in _FILLERS.split()]
    for pair in _FORMULAS.split():
        a, b = (_hash_of(same.get(sign, sign)) for sign in pair)
        entries.append((_joined(a, b), none))
    return _table(entries)


_TABLE: Final = _language()
