"""Signatures of texts: 256 bits a report, of which the more agree the more alike the texts are.

A signature is made at intake, of one text and the pack alone: no counts of other texts, so the same text has the same
signature under one pack everywhere and always.  It is a simhash: every pair of neighbouring signs of the text votes for
or against each bit, by the bits of its hash.  What tells texts of one event from others decides how much a vote counts:

- **What is said first counts most**: title, place and complaint come before the story.  The first 16 signs have 8 votes
  each, the next 32 have 4, then 64 have 2 and 128 have 1; no more is read.
- **Formulas have no vote**: 您好, 请尽快处理, "please fix".  They are in every message.
- **A sign** is a Chinese character, or a whole word or number of the scripts that put blanks between words; a word of
  letters votes by itself, too.  Pairs do not reach over a punctuation mark.
- **One written form**: that of `geo.place_names.normalised` (width, case, blanks, numerals before what is counted);
  besides, 幢 is 栋 and "Street" is "St".  Telephone and identity numbers, masked or not, are left out.
- **What a city says of all things of a kind has no vote**: names of its categories and labels (`Vocabulary`).  That two
  reports of one category are called alike is no evidence.
- **A text with fewer than four pairs and words** besides has no signature.

`benchmarks/quality_text.py` measures what that is worth.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from geo.place_names import normalised
from streams import signature_kernels as kernels
from streams.signature_kernels import BITS, NO_TEXT, WORDS

__all__ = [
    "BITS",
    "EVIDENCE_FROM",
    "LOOKED_AT",
    "NO_TEXT",
    "WORDS",
    "Signatures",
    "Vocabulary",
    "evidence",
    "features",
    "signatures",
    "similarities",
    "similarity",
]

Signatures = npt.NDArray[np.uint64]

LOOKED_AT: Final = 600
"""Characters of a text that are looked at: as many as the signs that have votes, unless they are long words."""

_FORMULAS: Final = """
    尊敬 您好 你好 领导 书记 局长 市长 县长 同志 请问 咨询 反映 反应 投诉 举报 建议 希望 恳请 请求 谢谢 感谢 此致 敬礼
    我们 本人 居民 业主 市民 百姓 老百 群众 政府 部门 有关 相关 问题 情况 解决 处理 严重 影响 小区 多次 至今 一直 什么
    时候 何时 能否 是否 可以 没有 现在 已经 因为 所以 但是 如果 以及 关于 对于 进行 造成 导致 无法 不能 应该 需要 为什
    怎么 如何 这个 那个 这样 这些 他们 自己 大家 全体 广大 各位 尽快 尽早 帮助 回复 答复 重视 了解 一个 我是 就是 不是
    还是 还有 目前 其他 时间 今年 去年 年月 月日 不知 知道 生活 正常 要求 工作 人员 请尽 快处 联系 系电 电话 来电
"""
"""Pairs of signs without a vote."""
_FILLERS: Final = """
    a an the this that these those there here it its is are was were be been being am has have had do does did not no
    and or but if so as at by for from in into of off on onto out over to up with about after before between near
    i me my we our us you your he she they them their who what when where which why how can could will would should may
    please thanks thank hello hi dear sir madam report reported reporting request requested complaint issue problem
    fix fixed repair need needs needed city department intersection corner
"""
"""Words that are not seen at all."""
_SAME: Final = (
    "street st str", "avenue ave av aven", "road rd", "boulevard blvd boul blv", "drive dr drv", "lane ln", "place pl",
    "court ct crt", "square sq", "parkway pkwy pky pkw", "highway hwy", "terrace ter terr", "circle cir circ",
    "expressway expy expwy", "alley aly", "apartment apt flat", "mount mt", "north n", "south s", "east e", "west w",
    "栋 幢 座", "号 號", "楼 樓",
)  # fmt: skip
"""Signs that mean the same.  They are too common to vote by themselves."""


EVIDENCE_FROM: Final = ((0, -45), (128, -35), (136, -15), (144, 10), (152, 65), (160, 100), (168, 135), (176, 160))
"""What a similarity is worth, from so many bits on, in centibans: hundredths of a power of ten of the odds.

Half way between two measurements.  One is of 2,105 long messages of citizens (`calibration` of
`benchmarks/quality_text.py`): messages of one issue in different words, 16 clusters of equal weight, against 2,224
pairs of others that share a district and a topic; where one issue is less likely, half of what was found, for the
labelled ones were found by their being alike.  The other is of 2,356 short tickets and reports of a simulated month
whose catalogue's names have no vote: 951 pairs of one event against 23,870 of others of one group.  They are 16 to 67
points apart, most where 144 to 151 bits agree.

It holds for what people write in their own words.  Addresses are no such thing: between reports of one category within
60 m in Boston (2011, 526 pairs of one event, 9,850 of others) equal ones were worth 15 centibans, others -90 to 0;
so the `text` of a report is signed and its `address` is not, and a city whose texts are addresses, or filled in by a
form, has to give texts no weight.
"""


def evidence() -> npt.NDArray[np.int16]:
    """`EVIDENCE_FROM` by number of agreeing bits, shape (BITS + 1,), for kernels.  `NO_TEXT` is no evidence, 0.

    >>> evidence()[[0, 127, 128, 151, 152, 256]].tolist()
    [-45, -45, -35, 10, 65, 160]
    """
    found = np.zeros(BITS + 1, np.int16)
    for bits, centibans in EVIDENCE_FROM:
        found[bits:] = centibans
    return found


class Vocabulary:
    """What has no vote in one city's texts besides the formulas of the language: pairs and words of some phrases.

    Parameters
    ----------
    phrases : iterable of str
        What everybody says of a kind of thing, whichever it is: names and labels of categories, 没人管.
    """

    def __init__(self, phrases: Iterable[str] = ()) -> None:
        spoken = sorted(set(phrases))
        silent = np.unique(features(spoken)) if spoken else np.zeros(0, np.uint64)
        none = np.uint64(0)
        self.table = _table([*_language(), *((key, none) for key in silent[silent != 0])])


def signatures(texts: Sequence[str | None], vocabulary: Vocabulary | None = None, *, salt: int = 0) -> Signatures:
    """The signature of each text.

    Parameters
    ----------
    texts : sequence of (str or None), length n
        What a report says, what matters most first.  The first `LOOKED_AT` characters are read.
    vocabulary : Vocabulary, optional
        What is a formula in this city.  Signatures of two vocabularies can be compared, as those of two texts of which
        each leaves something out.
    salt : int
        Other hashes, for measuring what of a figure is luck.  Only signatures of one salt can be compared.

    Returns
    -------
    uint64 array, shape (n, WORDS)
        A row of zeros for a text that says nothing: none, formulas only, or no more than the name of a category.

    Notes
    -----
    Integer arithmetic throughout: the same text has the same signature on every machine.

    >>> a, b, c = signatures(["枫桥路12号路灯不亮", "您好，枫桥路十二号的路灯不亮", "人民公园垃圾成堆"])
    >>> similarity(a, b) > similarity(a, c), similarity(a, a), similarity(a, signatures(["谢谢！"])[0])
    (True, 256, -1)
    """
    return _read(texts, vocabulary, salt, np.zeros((0, 0), np.uint64))


def features(texts: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Hashes of what has a vote in each text, zeros after the last; shape (n, MOST_FEATURES)."""
    found = np.zeros((len(texts), kernels.MOST_FEATURES), np.uint64)
    _read(texts, None, 0, found)
    return found


def _read(
    texts: Sequence[str | None], vocabulary: Vocabulary | None, salt: int, features_of: npt.NDArray[np.uint64]
) -> Signatures:
    table = (vocabulary or _no_vocabulary()).table
    found = np.zeros((len(texts), WORDS), np.uint64)
    unusual = np.zeros(len(texts), np.bool_)
    mixing = np.uint64(salt) << np.uint64(1)
    read = [text[:LOOKED_AT] if text else "" for text in texts]
    kernels.sign_texts(*_joined(read), False, table, mixing, found, unusual, features_of)
    rows = np.flatnonzero(unusual)
    if len(rows):
        again = np.zeros((len(rows), WORDS), np.uint64)
        said = np.zeros_like(features_of[rows]) if len(features_of) else features_of
        plain = [normalised(read[row]) for row in rows.tolist()]
        kernels.sign_texts(*_joined(plain), True, table, mixing, again, np.zeros(len(rows), np.bool_), said)
        found[rows] = again
        if len(features_of):
            features_of[rows] = said
    return found


def similarity(a: Signatures, b: Signatures) -> int:
    """How many bits of two signatures agree: 0 to `BITS`, half of them by chance; `NO_TEXT` if either has none."""
    return int(similarities(a.reshape(1, WORDS), b.reshape(1, WORDS))[0])


def similarities(a: Signatures, b: Signatures) -> npt.NDArray[np.int32]:
    """`similarity` row by row of two arrays of one shape (n, WORDS)."""
    if a.shape != b.shape or a.ndim != 2 or a.shape[1] != WORDS:
        raise ValueError(f"signatures of shapes {a.shape} and {b.shape}; two of one shape (n, {WORDS}) are compared")
    found = np.empty(len(a), np.int32)
    kernels.compare(np.ascontiguousarray(a), np.ascontiguousarray(b), found)
    return found


def _joined(texts: list[str]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """All texts' characters in a row, and where each text begins and ends."""
    ends = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in texts], out=ends[1:])
    # A message may hold half of a pair of surrogates.
    return np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32), ends


def _hash_of(sign: str) -> np.uint64:
    hashed = kernels.hash_of_sign(np.frombuffer(sign.encode("utf-32-le"), np.uint32), np.zeros(2, np.uint64))
    assert hashed, f"{sign!r} is one sign"
    return np.uint64(hashed)


def _table(entries: Sequence[tuple[np.uint64, np.uint64]]) -> npt.NDArray[np.uint64]:
    """Open addressing: what each hash is taken for, 0 where it is not seen or has no vote; half of it is free."""
    table = np.zeros((1 << (2 * len(entries) + 1).bit_length(), 2), np.uint64)
    for key, meaning in entries:
        at = (int(key) >> 1) % len(table)
        while table[at, 0] not in (0, key):
            at = (at + 1) % len(table)
        table[at] = key, meaning
    return table


@cache
def _language() -> tuple[tuple[np.uint64, np.uint64], ...]:
    """What the kernels know of Chinese and English.  Made when first asked for: it needs compiled kernels."""
    none = np.uint64(0)
    entries = [
        (_hash_of(sign), np.uint64(kernels.joined(np.uint64(3), np.uint64(number))))
        for number, signs in enumerate(_SAME)
        for sign in signs.split()
    ]
    entries += [(_hash_of(word), none) for word in _FILLERS.split()]
    pairs = [(_hash_of(pair[0]), _hash_of(pair[1])) for pair in _FORMULAS.split()]
    entries += [(np.uint64(kernels.joined(a, b)), none) for a, b in pairs]
    return tuple(entries)


@cache
def _no_vocabulary() -> Vocabulary:
    return Vocabulary()
