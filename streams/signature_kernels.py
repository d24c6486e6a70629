"""The kernels of signatures: texts read sign by sign, votes counted, bits compared (:mod:`.signatures`).

They are compiled, and call none of another module: numba's cache knows when this one has changed, and no other.

Most texts need not be rewritten before they are read: their marks, widths and capitals are seen through on the way.  A
text for which that is not enough is told to be *unusual*; whoever calls has it rewritten by `normalised` and read
again.  Both ways give the same signature.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar, cast

import numba
import numpy as np

WORDS: Final = 4
"""64-bit words of a signature."""
BITS: Final = 64 * WORDS
NO_TEXT: Final = -1
"""Similarity where either report has no usable text: nothing is known."""

FIRST_PLANE: Final = 3
"""The first signs have 2**3 votes."""
FIRST_SIGNS: Final = 16
"""So many have them; twice as many have half as many, and so on."""
MOST_SIGNS: Final = 240
"""Signs that have votes: 16 with 8, 32 with 4, 64 with 2, 128 with 1."""
FEWEST_FEATURES: Final = 4
"""Features of a text that says something: of fewer, chance decides too many bits."""
MOST_FEATURES: Final = 2 * MOST_SIGNS
"""A pair with the sign before, and a word by itself."""
PLANES: Final = 11
"""Binary places of a count of votes: a sign has at most two features, so there are at most 1,024 votes."""
LONGEST_NUMBER: Final = 6
"""Digits of a number that may be a house, a bus or a year; more are a telephone's, an account's or a person's."""
SHORTEST_WORD: Final = 3
"""Letters of a word that votes by itself."""

_STRANGE, _BREAK, _BLANK, _FILLER, _DASH, _APOSTROPHE, _POINT, _STAR, _DIGIT, _LETTER, _APART = range(11)
"""Kinds of characters: one that only `normalised` knows; what ends what can be a pair; what is between words or within
names without meaning anything, with three kinds of it on which more depends; a mask; what words and numbers are made
of; and what is a word by itself: Chinese characters, kana, Hangul."""

F = TypeVar("F")


def _jit(function: F) -> F:
    compiled: Any = numba.njit(cache=True, nogil=True, error_model="numpy")
    return cast(F, compiled(function))


@_jit
def mixed(a: Any) -> Any:
    """A hash of which every bit depends on every bit of the number."""
    a ^= a >> np.uint64(33)
    a *= np.uint64(0xFF51AFD7ED558CCD)
    a ^= a >> np.uint64(33)
    a *= np.uint64(0xC4CEB9FE1A85EC53)
    a ^= a >> np.uint64(33)
    return a


@_jit
def joined(a: Any, b: Any) -> Any:
    """The hash of two things in this order; never 0, which says that there is none."""
    return mixed(a * np.uint64(0x9E3779B97F4A7C15) + b) | np.uint64(1)


@_jit
def alone(key: Any) -> Any:
    """What stands in the table for a word's own vote; the word's hash stands for the word wherever it occurs."""
    return joined(np.uint64(4), key)


# --------------------------------------------------------------------------------------------------------- comparing


@_jit
def agreeing(a: Any, b: Any) -> Any:
    """How many bits of two signatures agree, or `NO_TEXT`."""
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
def compare(a: Any, b: Any, found: Any) -> None:
    """`agreeing`, row by row."""
    for row in range(len(a)):
        found[row] = agreeing(a[row], b[row])


# ----------------------------------------------------------------------------------------------------------- reading


@_jit
def _kind(sign: Any) -> Any:
    """What a character is; `normalised` makes nothing else of any that is not strange."""
    if 0x4E00 <= sign < 0xA000:
        return _APART
    if 0xFF01 <= sign <= 0xFF5E:
        sign -= 0xFEE0
    if 0x61 <= sign <= 0x7A or 0x41 <= sign <= 0x5A:
        return _LETTER
    if 0x30 <= sign <= 0x39:
        return _DIGIT
    if sign == 0x20 or sign == 0x09 or sign == 0x3000:
        return _BLANK
    # 。、‘… line ends and ! $ % & + , / : ; = ? @ \ ^ |
    if (
        0x3001 <= sign <= 0x3002 or sign == 0x2018 or sign == 0x2026 or sign == 0x0A or sign == 0x0D or sign == 0x21
        or 0x24 <= sign <= 0x26 or 0x2B <= sign <= 0x2C or sign == 0x2F or 0x3A <= sign <= 0x3B or sign == 0x3D
        or 0x3F <= sign <= 0x40 or sign == 0x5C or sign == 0x5E or sign == 0x7C
    ):  # fmt: skip
        return _BREAK
    # " ( ) < > [ ] _ { } · “ ” and 〈 to 】
    if (
        sign == 0x22 or 0x28 <= sign <= 0x29 or sign == 0x3C or sign == 0x3E or sign == 0x5B or sign == 0x5D
        or sign == 0x5F or sign == 0x7B or sign == 0x7D or sign == 0xB7 or 0x201C <= sign <= 0x201D
        or 0x3008 <= sign <= 0x3011
    ):  # fmt: skip
        return _FILLER
    if sign == 0x2D or sign == 0x7E or sign == 0x2014:
        return _DASH
    if sign == 0x27 or sign == 0x60 or sign == 0x2019:
        return _APOSTROPHE
    return _POINT if sign == 0x2E else _STRANGE


@_jit
def _kind_left(sign: Any) -> Any:
    """What a strange character is that `normalised` has left as it is."""
    if sign == 0x2A:
        return _STAR
    if sign < 0xC0 or sign == 0xD7 or sign == 0xF7:
        return _BREAK
    if sign < 0x2000:
        return _LETTER
    if sign < 0x2E80 or 0x3003 <= sign < 0x3005 or 0x3012 <= sign < 0x3021 or 0xD800 <= sign < 0xF900:
        return _BREAK
    if 0xFE00 <= sign < 0xFE70 or 0xFFE0 <= sign < 0x20000 or sign >= 0xE0000:
        return _BREAK
    return _APART


@_jit
def _numeral(sign: Any) -> Any:
    """零一二三四五六七八九两 as 0 to 9, 十百千万 as 10, else -1; 〇 and ○ are strange."""
    if sign == 0x4E00:
        return 1
    if sign == 0x4E8C or sign == 0x4E24:
        return 2
    if sign == 0x4E09:
        return 3
    if sign == 0x56DB:
        return 4
    if sign == 0x4E94:
        return 5
    if sign == 0x516D:
        return 6
    if sign == 0x4E03:
        return 7
    if sign == 0x516B:
        return 8
    if sign == 0x4E5D:
        return 9
    if sign == 0x96F6:
        return 0
    return 10 if sign == 0x5341 or sign == 0x767E or sign == 0x5343 or sign == 0x4E07 else -1


@_jit
def _counts(sign: Any) -> Any:
    """Whether `normalised` writes a numeral before this in digits: 1 for 号弄栋幢座楼层室组期队区中小米.

    2 for 单公千, which do it if 元, 里 or 米 follows; else 0.
    """
    if (
        sign == 0x53F7 or sign == 0x5F04 or sign == 0x680B or sign == 0x5E62 or sign == 0x5EA7 or sign == 0x697C
        or sign == 0x5C42 or sign == 0x5BA4 or sign == 0x7EC4 or sign == 0x671F or sign == 0x961F or sign == 0x533A
        or sign == 0x4E2D or sign == 0x5C0F or sign == 0x7C73
    ):  # fmt: skip
        return 1
    return 2 if sign == 0x5355 or sign == 0x516C or sign == 0x5343 else 0


@_jit
def _is_counted(text: Any, at: Any, end: Any) -> Any:
    """Whether what counts follows the numeral here: 0 no, 1 yes, 2 that is for `normalised` to say."""
    if at + 1 >= end or _kind(text[at + 1]) == _BREAK:
        return 0
    if _kind(text[at + 1]) != _APART or _numeral(text[at + 1]) >= 0:
        return 2
    counts = _counts(text[at + 1])
    if counts < 2:
        return counts
    if at + 2 >= end or _kind(text[at + 2]) == _BREAK:
        return 0
    if _kind(text[at + 2]) != _APART:
        return 2
    first, second = text[at + 1], text[at + 2]
    return np.int64((first == 0x5355 and second == 0x5143) or (first == 0x516C and second == 0x91CC))


@_jit
def _looked_up(key: Any, table: Any) -> Any:
    """What stands in the table for a hash: itself if nothing does."""
    mask = np.uint64(len(table) - 1)
    # The lowest bit of every hash is 1.
    at = (key >> np.uint64(1)) & mask
    while table[at, 0] != np.uint64(0):
        if table[at, 0] == key:
            return table[at, 1]
        at = (at + np.uint64(1)) & mask
    return key


@_jit
def _word_at(text: Any, at: Any, end: Any, is_normalised: Any, told: Any) -> Any:
    """The end of the word or number that begins here, -1 if the text is unusual.

    ``told`` gets its hash (0: it is not to be compared), and whether it is a word that votes by itself.
    """
    key = np.uint64(2)
    digits = letters = 0
    masked = False
    before = _BREAK
    while at < end:
        sign = text[at]
        kind = _kind(sign)
        if kind == _STRANGE:
            if not is_normalised:
                return -1
            kind = _kind_left(sign)
        following = _kind(text[at + 1]) if at + 1 < end else _BREAK
        if following == _STRANGE and is_normalised:
            following = _kind_left(text[at + 1])
        if kind == _DIGIT:
            digits += 1
        elif kind == _LETTER:
            letters += 1
        elif kind == _STAR:
            masked = True
        elif kind == _APOSTROPHE:
            at += 1
            continue
        elif kind == _DASH:
            within = (sign == 0x2D or sign == 0xFF0D) and following in (_DIGIT, _LETTER)
            if not within:
                # 5 - 6 is 5-6, but a - b is a b.
                if not is_normalised:
                    return -1
                break
        elif kind == _POINT:
            if before == _LETTER:
                at += 1
                break
            if following == _APOSTROPHE:
                return -1
            if following != _DIGIT:
                break
        else:
            break
        if sign > 0xFF00 and sign <= 0xFF5E:
            sign -= np.uint32(0xFEE0)
        if 0x41 <= sign <= 0x5A:
            sign += np.uint32(0x20)
        key = joined(key, np.uint64(sign))
        before = kind
        at += 1
    if masked or digits > LONGEST_NUMBER:
        key = np.uint64(0)
    told[0] = key
    told[1] = np.uint64(digits == 0 and letters >= SHORTEST_WORD)
    return at


@_jit
def hash_of_sign(text: Any, told: Any) -> Any:
    """The hash of a text that is one sign, 0 if it is not."""
    told[0] = np.uint64(0)
    if len(text) == 1 and _kind(text[0]) == _APART:
        return joined(np.uint64(1), np.uint64(text[0]))
    end = _word_at(text, 0, len(text), True, told)
    return told[0] if end == len(text) else np.uint64(0)


@_jit
def _vote(feature: Any, plane: Any, planes: Any, first: Any, is_first: Any) -> None:
    """Add 2**plane votes of a feature to each bit's count; the counts stand upright, a binary place a plane."""
    for word in range(WORDS):
        carry = mixed(feature + np.uint64(word + 1) * np.uint64(0xD1B54A32D192ED03))
        if is_first:
            first[word] = carry
        for at in range(plane, PLANES):
            if carry == np.uint64(0):
                break
            both = planes[at, word] & carry
            planes[at, word] ^= carry
            carry = both


@_jit
def _counted(planes: Any, votes: Any, first: Any, found: Any) -> None:
    """Bits for which more than half of the votes are."""
    half = votes >> 1
    for word in range(WORDS):
        more = np.uint64(0)
        equal = ~np.uint64(0)
        for place in range(PLANES - 1, -1, -1):
            if (half >> place) & 1:
                equal &= planes[place, word]
            else:
                more |= equal & planes[place, word]
                equal &= ~planes[place, word]
        # A draw is decided by what was said first; were it always 0, short texts would all be alike.
        if votes & 1 == 0:
            more |= equal & first[word]
        found[word] = more


@_jit
def sign_texts(
    text: Any, ends: Any, is_normalised: Any, table: Any, salt: Any, found: Any, unusual: Any, features_of: Any
) -> None:
    """The signature of each text, ``text[ends[row]:ends[row + 1]]``, or that it is unusual.

    ``found`` holds zeros, ``unusual`` False.  A normalised text is never unusual.  ``features_of`` holds zeros, shape
    (texts, `MOST_FEATURES`) or (0, 0), and gets what has a vote, as `salt` 0 has it.
    """
    is_asked = len(features_of) > 0
    planes = np.zeros((PLANES, WORDS), np.uint64)
    first = np.zeros(WORDS, np.uint64)
    told = np.zeros(2, np.uint64)
    for row in range(len(ends) - 1):
        planes[:] = np.uint64(0)
        votes = features = np.int64(0)
        before = np.uint64(0)
        at = ends[row]
        end = ends[row + 1]
        seen = 0
        plane = FIRST_PLANE
        left = FIRST_SIGNS
        # After a word, blanks apart; after a word, what has no meaning apart.
        after_word = after_run = after_numeral = False
        while at < end and seen < MOST_SIGNS:
            sign = text[at]
            kind = _kind(sign)
            if kind == _STRANGE:
                if not is_normalised:
                    unusual[row] = True
                    break
                kind = _kind_left(sign)
            if kind == _APART:
                if after_numeral and not is_normalised and _counts(sign) > 0:
                    unusual[row] = True
                    break
                key = joined(np.uint64(1), np.uint64(sign))
                told[1] = np.uint64(0)
                numeral = _numeral(sign)
                if 0 <= numeral < 10 and not after_numeral and not after_run and not is_normalised:
                    # The commonest case of numerals, 二期, is not worth being unusual.
                    counted = _is_counted(text, at, end)
                    if counted == 1:
                        key = joined(np.uint64(2), np.uint64(0x30 + numeral))
                    after_numeral = counted == 2
                else:
                    after_numeral = numeral >= 0
                after_word = after_run = False
                at += 1
            elif kind in (_DIGIT, _LETTER, _STAR):
                at = _word_at(text, at, end, is_normalised, told)
                if at < 0:
                    unusual[row] = True
                    break
                key = told[0]
                after_word = after_run = True
                after_numeral = False
                if key == np.uint64(0):
                    before = np.uint64(0)
                    continue
            else:
                at += 1
                if kind in (_BREAK, _POINT):
                    before = np.uint64(0)
                    after_word = after_run = after_numeral = False
                elif kind in (_DASH, _FILLER):
                    if kind == _DASH and after_word and not is_normalised:
                        unusual[row] = True
                        break
                    after_word = False
                continue
            same = _looked_up(key, table)
            if same == np.uint64(0):
                continue
            # What the table has another meaning for, like St, does not vote by itself.
            if told[1] != np.uint64(0) and same == key and _looked_up(alone(key), table) != np.uint64(0):
                _vote(key ^ salt, plane, planes, first, votes == 0)
                votes += np.int64(1) << plane
                if is_asked:
                    features_of[row, features] = alone(key)
                features += 1
            key = same
            if before != np.uint64(0):
                pair = _looked_up(joined(before, key), table)
                if pair != np.uint64(0):
                    _vote(pair ^ salt, plane, planes, first, votes == 0)
                    votes += np.int64(1) << plane
                    if is_asked:
                        features_of[row, features] = pair
                    features += 1
            before = key
            seen += 1
            left -= 1
            if left == 0 and plane > 0:
                plane -= 1
                left = FIRST_SIGNS << (FIRST_PLANE - plane)
        if features >= FEWEST_FEATURES and not unusual[row]:
            _counted(planes, votes, first, found[row])
