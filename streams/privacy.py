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

# Longest first: a mobile number is also a run inside an identity card's digits.
_ID_CARD = re.compile(r"(?<!\d)([1-9]\d{5})(?:18|19|20)\d{2}(?:0[1-9]|1[0-2])(?:[0-2]\d|3[01])\d{3}([\dXx])(?!\d)")
_MOBILE = re.compile(r"(?<!\d)((?:\+?86[- ]?)?1[3-9]\d)[- ]?\d{4}[- ]?(\d{4})(?!\d)")
_LANDLINE = re.compile(r"(?<!\d)(0\d{2,3})[- ]?\d{3,4}(\d{4})(?!\d)")
_PLATE = re.compile(
    r"([京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼][A-HJ-NP-Z])[·• ]?"
    r"[A-HJ-NP-Z0-9]{3,4}([A-HJ-NP-Z0-9]{2})"
)
_FULL_WIDTH = str.maketrans("\uff10\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18\uff19\uff0b\uff0d", "0123456789+-")


class CallerHasher:
    """Links the calls of one caller by HMAC-SHA-256 under a key that the operator rotates."""

    def __init__(self, key: bytes) -> None:
        if not key:
            raise ValueError("the key for caller hashes is empty")
        self._mac = hmac.new(key, digestmod=hashlib.sha256)

    def hash(self, caller: str) -> str:
        """32 hex digits; the same for the same number however it is spaced, prefixed or widened."""
        digits = re.sub(r"\D", "", caller.translate(_FULL_WIDTH))
        if len(digits) == 13 and digits.startswith("86"):
            digits = digits[2:]
        mac = self._mac.copy()
        mac.update((digits or caller).encode())
        return mac.hexdigest()[:32]


def mask_text(text: str) -> str:
    """The text with phone numbers, identity cards and number plates masked: `138****5678`.

    Names of persons cannot be told from other words by a pattern and are not masked; a text therefore never leaves
    the internal topics.

    >>> mask_text("联系13812345678,车牌晋C12345")
    '联系138****5678,车牌晋C***45'
    """
    if text.isascii() and not any(character.isdigit() for character in text):
        return text
    text = text.translate(_FULL_WIDTH)
    text = _ID_CARD.sub(r"\1********\2", text)
    text = _MOBILE.sub(r"\1****\2", text)
    text = _LANDLINE.sub(r"\1****\2", text)
    return _PLATE.sub(r"\1***\2", text)
