"""What may not leave the intake: callers become keyed hashes, numbers in texts are masked.

A phone number has eleven digits, so a plain hash of it can be tried out in minutes; only a keyed one links two calls
of one caller without naming him.
"""

from __future__ import annotations

import hashlib
import hmac
import re

TEST_KEY = b"citybrain test key, not for a city"
"""The stated key of `demo` and `replay`; `worker` refuses it."""

# Most texts hold no seven digits in a row, however they are spaced; they need no closer look.
_SUSPECT = re.compile(r"\d(?:[-\s().·\u2010-\u2015]{0,2}\d){6}")
# Longest first: a mobile number is also a run inside an identity card's digits.
_ID_CARD = re.compile(r"(?<!\d)([1-9]\d{5})(?:18|19|20)\d{2}(?:0[1-9]|1[0-2])(?:[0-2]\d|3[01])\d{3}([\dXx])(?!\d)")
# Spaces and dashes stand anywhere, dots only between the usual groups: 131.12345678 is a longitude.
_GAP = r"[-\s\u2010-\u2015]?"
_MOBILE = re.compile(
    rf"(?<!\d)((?:\+?86{_GAP})?1{_GAP}[3-9]{_GAP}\d)(?:{_GAP}\d){{4}}{_GAP}(\d(?:{_GAP}\d){{3}})(?!\d)"
)
_DOTTED = re.compile(r"(?<!\d)(1[3-9]\d)[.·]\d{4}[.·](\d{4})(?!\d)")
_LANDLINE = re.compile(rf"(?<!\d)(0\d{{2,3}}\)?){_GAP}\d{{3,4}}{_GAP}(\d{{4}})(?!\d)")
# Whatever else is long: local numbers without an area code, bank cards, numbers run into one another.  A fraction is
# spared, for that is a coordinate.
_LONG = re.compile(r"(?<!\d)(?<!\d\.)\d{7,}")
_PLATE = re.compile(
    r"([京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼使][A-HJ-NP-Z])[·•.\s-]?"
    r"[A-HJ-NP-Z0-9]{3,4}([A-HJ-NP-Z0-9]{2}|[A-HJ-NP-Z0-9][挂学警港澳领])",
    re.IGNORECASE,
)
# Digits, letters, plus, minus, full stop and brackets as Chinese keyboards also write them.
_FULL_WIDTH = {
    ord(character) + 0xFEE0: character
    for character in "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz()+-."
}
_IS_FULL_WIDTH = re.compile(f"[{''.join(map(re.escape, map(chr, _FULL_WIDTH)))}]")
_PHONE_ALONE = re.compile(r"\s*(?:tel:)?[\d\s()+.·/\u2010-\u2015-]+", re.IGNORECASE)
_IN_NUMBERS = (
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz +-.·•()\u2010\u2011\u2012\u2013\u2014\u2015"
)
_LONGEST_NUMBER = 40


class CallerHasher:
    """Links the calls of one caller by HMAC-SHA-256 under a key that the operator rotates."""

    def __init__(self, key: bytes) -> None:
        if not key:
            raise ValueError("the key for caller hashes is empty")
        self._mac = hmac.new(key, digestmod=hashlib.sha256)

    def hash(self, caller: str) -> str:
        """32 hex digits; the same for the same number however it is spaced, prefixed or widened."""
        mac = self._mac.copy()
        mac.update(_canonical(caller).encode())
        return mac.hexdigest()[:32]


def _canonical(caller: str) -> str:
    """A phone number as eleven digits or so, with the area code's zero and without the country; anything else as is."""
    if len(caller) <= 11 and caller.isascii() and caller.isdigit() and not caller.startswith("0"):
        return caller  # as nearly all come: nothing below would change it
    text = caller.translate(_FULL_WIDTH)
    digits = re.sub(r"\D", "", text)
    # What merely contains digits is a name or an account: those of `WX-1` and `QQ-1` are not one caller.
    if not digits or not _PHONE_ALONE.fullmatch(text):
        return caller.strip()
    digits = digits.removeprefix("00") if digits.startswith("0086") else digits
    if len(digits) > 11 and digits.startswith("86"):
        digits = digits.removeprefix("86").removeprefix("0")
        if not re.fullmatch(r"1[3-9]\d{9}", digits):
            digits = "0" + digits
    # No area code begins with 013 to 019, so that zero was dialled to reach another city's mobile.
    return digits.removeprefix("0") if re.fullmatch(r"01[3-9]\d{9}", digits) else digits


def mask_text(text: str) -> str:
    """The text with phone numbers, identity cards and number plates masked: `138****5678`.

    Any other run of seven or more digits is masked too, for it may be a local number.  Names of persons cannot be told
    from other words by a pattern and are not masked; a text therefore never leaves the internal topics.

    >>> mask_text("联系13812345678,车牌晋C12345")
    '联系138****5678,车牌晋C***45'
    """
    is_ascii = text.isascii()
    if not is_ascii and _IS_FULL_WIDTH.search(text):
        text = text.translate(_FULL_WIDTH)
    if _SUSPECT.search(text):
        text = _ID_CARD.sub(r"\1********\2", text)
        text = _MOBILE.sub(r"\1****\2", text)
        text = _DOTTED.sub(r"\1****\2", text)
        text = _LANDLINE.sub(r"\1****\2", text)
        text = _LONG.sub(_mask_run, text)
    return text if is_ascii else _PLATE.sub(r"\1***\2", text)


def mask_beginning(text: str, length: int, *, is_cut: bool = False) -> str:
    """At most the first ``length`` characters of the masked text.

    Masked before it is cut: half a number is no number to a pattern, and ten digits of eleven name a caller.
    ``is_cut``: the text itself is the beginning of a longer one.  A number at the place of a cut is left out.
    """
    looked_at = text[: 2 * length]
    if is_cut or len(looked_at) < len(text):
        looked_at = looked_at.translate(_FULL_WIDTH)
        looked_at = looked_at[:-_LONGEST_NUMBER] + looked_at[-_LONGEST_NUMBER:].rstrip(_IN_NUMBERS)
    return mask_text(looked_at)[:length]


def _mask_run(run: re.Match[str]) -> str:
    digits = run[0]
    return f"{digits[:3]}****{digits[-4:] if len(digits) >= 11 else ''}"
