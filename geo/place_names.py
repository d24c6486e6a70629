"""Names of places in running text: one written form for both, and every name of a text in one pass.

Chinese puts no blanks between words, so a name may be found anywhere; but it is not found where it begins or ends
within a Latin word, a number or a numeral: neither ``1号楼`` in ``11号楼`` nor ``Park`` in ``Parker``, nor anything
within a telephone number.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

# Latin, Greek, digits and so on, after NFKC and in small letters: what is written with blanks between words.
_WORD = "[0-9a-z\u00df-\u1fff]"
_NUMERALS = "零〇○一二三四五六七八九十百千万两"
_HOUSE_COUNTERS = "号|弄|栋|幢|座|单元|楼|层|室|组|期|队|区"
# Schools are counted, too, and so are the metres to a place.
_COUNTERS = f"{_HOUSE_COUNTERS}|中|小|米|公里|千米"

# Whatever any of the steps below changes; most names have nothing of the kind.
_UNUSUAL = re.compile(f"[^\\w& ]|_| (?!{_WORD})|(?<!{_WORD}) |[{_NUMERALS}](?={_COUNTERS})")
_HASH = re.compile(r"(?<=\d)#")
_APOSTROPHE = re.compile("['’`]")
_ABBREVIATION = re.compile(r"(?<=[a-z])\.")
_DASH = re.compile(rf"(?<=\d) *[-‐–—~] *(?=\d)|(?<={_WORD})[-‐–—](?={_WORD})")
# What people put between names.
_BREAK = re.compile(r"(?:[。、，；：！？,;:!?|/\\\r\n]|(?<!\d)\.|\.(?!\d))+")
# What they put into a name without meaning it.  A dash that is left between two words belongs to them.
_FILLER = re.compile(rf"(?:[^\S\n]|[·•‧‐–—~_\"“”()\[\]{{}}<>《》〈〉「」『』【】]|(?<!{_WORD})-|-(?!{_WORD}))+")
_NEEDLESS_BLANK = re.compile(f" (?!{_WORD})|(?<!{_WORD}) ")
_COUNTED = re.compile(f"(?<![0-9{_NUMERALS}])[{_NUMERALS}]+(?={_COUNTERS})")
_SPELT = re.compile("[零〇○一二三四五六七八九]+")
_ONE_TO_NINE = "([一二两三四五六七八九])"
_BELOW_A_THOUSAND = re.compile(f"(?:{_ONE_TO_NINE}?(百))?零?(?:{_ONE_TO_NINE}?(十))?(?:(?<!百){_ONE_TO_NINE})?")
_DIGIT = {digit: str(value) for value, digit in enumerate("零一二三四五六七八九")} | {"〇": "0", "○": "0", "两": "2"}

# A word goes on over a point or a dash that was left in it.
_RUN = re.compile(f"(?:{_WORD}|[-.])+|[{_NUMERALS}]+")
_NUMBER_ONLY = re.compile(f"(?:[-.\\s\\d{_NUMERALS}]|{_HOUSE_COUNTERS})*")


def normalised(text: str) -> str:
    """Names and texts in one written form; what it makes of a name it makes of the name in a text, too.

    - Full-width, half-width and encircled forms become the plain ones, capitals small letters.
    - Marks between names (comma, line end, slash …) become a line end.
    - Blanks, quotation marks, brackets, middle dots and loose dashes within names go, and leave one blank between two
      Latin words or numbers; a dash between these stays: 5-1号 is not 51号.
    - A Chinese numeral below a thousand before a word that counts houses, floors, schools or metres is written in
      digits, and # after a number is 号.  No other numeral is touched: 五一路 is a street, 51路 is a bus.

    >>> normalised("鼓楼路 十二号，（Ａ座）"), normalised("三里屯二〇三室"), normalised("Corey St. & Main St")
    ('鼓楼路12号\\na座', '三里屯203室', 'corey st&main st')
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    if not _UNUSUAL.search(plain):
        return plain
    plain = _ABBREVIATION.sub(" ", _APOSTROPHE.sub("", plain))
    plain = _FILLER.sub(" ", _BREAK.sub("\n", _DASH.sub("-", plain)))
    plain = _HASH.sub("号", _NEEDLESS_BLANK.sub("", plain))
    plain = _COUNTED.sub(_in_digits, plain)
    return plain.strip(" \n")


def _in_digits(run: re.Match[str]) -> str:
    """A numeral in digits, be it counted or spelt digit by digit; one that is neither stays as it is."""
    numeral = run[0]
    if _SPELT.fullmatch(numeral):
        return "".join(_DIGIT[sign] for sign in numeral)
    counted = _BELOW_A_THOUSAND.fullmatch(numeral)
    if counted is None:
        return numeral
    hundreds, has_hundreds, tens, has_tens, ones = counted.groups()
    value = 100 * int(_DIGIT[hundreds or "一"]) if has_hundreds else 0
    value += 10 * int(_DIGIT[tens or "一"]) if has_tens else 0
    return str(value + int(_DIGIT[ones or "零"]))


def is_findable(plain: str) -> bool:
    """Whether a normalised name says anything: two characters at least, and more than a number or a house number.

    >>> [is_findable(name) for name in ("枫桥", "桥", "110", "五一", "3号楼", "1中")]
    [True, False, False, False, False, True]
    """
    return len(plain) >= 2 and not _NUMBER_ONLY.fullmatch(plain)


class Found(NamedTuple):
    """A name found in a normalised text, ``plain[start:end]``, and its number."""

    start: int
    end: int
    number: int


class PlaceNames:
    """Names by number, in order of their first coming.

    A dict of the names, and for each pair of characters that a name begins with the lengths of such names.  Unlike an
    Aho-Corasick automaton it is built and freed without holding up other threads (decision 012).
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._lengths: dict[str, tuple[int, ...]] = {}
        self._shared: dict[tuple[int, ...], tuple[int, ...]] = {}
        self.longest = 0
        """Characters of the longest name, normalised."""

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, name: str) -> int:
        """The number of a name, new or not; -1 for one that is never looked for."""
        plain = normalised(name)
        number = self._numbers.get(plain)
        if number is not None:
            return number
        if not is_findable(plain):
            return -1
        number = len(self._numbers)
        # The pack holds the same text already.
        self._numbers[name if plain == name else plain] = number
        length, beginning = len(plain), plain[:2]
        self.longest = max(self.longest, length)
        lengths = self._lengths.get(beginning, ())
        if length not in lengths:
            more = tuple(sorted((*lengths, length), reverse=True))
            self._lengths[beginning] = self._shared.setdefault(more, more)
        return number

    def find(self, plain: str) -> list[Found]:
        """The names in a normalised text: at the leftmost place the longest, then on from its end.

        The time grows with the text, not with the names.
        """
        found: list[Found] = []
        lengths_of, number_of = self._lengths.get, self._numbers.get
        inside: set[int] | None = None
        start, last = 0, len(plain) - 1
        while start < last:
            end = 0
            for length in lengths_of(plain[start : start + 2], ()):
                number = number_of(plain[start : start + length])
                if number is None or start + length > last + 1:
                    continue
                if inside is None:
                    inside = {at for run in _RUN.finditer(plain) for at in range(run.start() + 1, run.end())}
                if start not in inside and start + length not in inside:
                    end = start + length
                    found.append(Found(start, end, number))
                    break
            start = end or start + 1
        return found
