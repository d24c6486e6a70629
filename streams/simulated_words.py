"""The words of those who speak in a simulated city, as data: `simulated_words.toml`, read and checked."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterator
from importlib import resources
from typing import Annotated

import msgspec
from msgspec import Meta

Word = Annotated[str, Meta(min_length=1, max_length=40)]
Words = Annotated[tuple[Word, ...], Meta(min_length=1)]
PARTS = ("opening", "when", "place", "thing", "details", "again", "closing")
"""Of what a text is put together."""
LONGEST_TEXT = 256
"""No text has more characters, however the words fall together."""

_SPOKEN_NUMBERS = 199
"""As far as numerals are known, and one more for who mishears."""
_HOLE = re.compile(r"\{(\w+)\}")


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file; what its keys mean stands there."""


class LandmarkKind(_Table, frozen=True, kw_only=True):
    """Things of one kind that people name a place by."""

    weight: Annotated[float, Meta(gt=0)]
    first: tuple[Word, ...] = ()
    names: Annotated[tuple[Words, ...], Meta(min_length=1)]
    numbers: tuple[int, int] | None = None
    at: Words


class Manner(_Table, frozen=True, kw_only=True):
    """How those of one source put a text together."""

    orders: Annotated[tuple[Words, ...], Meta(min_length=1)]
    openings: Words
    whens: Words
    closings: Words
    agains: Words
    not_repaireds: Words
    questions: Words


class Thing(_Table, frozen=True, kw_only=True):
    """What there is to be said of some categories."""

    codes: Annotated[tuple[str, ...], Meta(min_length=1)]
    called: tuple[Word, ...]
    aspects: Annotated[tuple[Annotated[tuple[Words, ...], Meta(min_length=2)], ...], Meta(min_length=1)]


class Vocabulary(_Table, frozen=True, kw_only=True):
    """The whole file."""

    separators: Words
    confused: Words
    sides: Annotated[tuple[Words, ...], Meta(min_length=4, max_length=4)]
    steps: Annotated[tuple[Words, ...], Meta(min_length=4, max_length=4)]
    between: Words
    read_out: Words
    landmarks: Annotated[tuple[LandmarkKind, ...], Meta(min_length=1)]
    estates: Annotated[tuple[LandmarkKind, ...], Meta(min_length=1)]
    hotline: Manner
    patrol: Manner
    things: Annotated[tuple[Thing, ...], Meta(min_length=1)]

    def thing(self, code: str) -> Thing:
        """What there is to be said of a category: the entry with the longest beginning of its code."""
        begins = ((begin, thing) for thing in self.things for begin in thing.codes if code.startswith(begin))
        return max(begins, key=lambda one: len(one[0]))[1]


@functools.cache
def vocabulary() -> Vocabulary:
    """The shipped words.

    Raises
    ------
    ValueError
        If the file is not as `Vocabulary` says.
    """
    text = resources.files("streams").joinpath("simulated_words.toml").read_text(encoding="utf-8")
    words = msgspec.convert(tomllib.loads(text), Vocabulary)
    problem = next(problems(words), None)
    if problem is not None:
        raise ValueError(f"simulated_words.toml: {problem}")
    return words


def problems(words: Vocabulary) -> Iterator[str]:
    """What the types cannot say is wrong."""
    begins = [begin for thing in words.things for begin in thing.codes]
    if "" not in begins:
        yield 'things: one entry must have codes = [""], for what no other fits'
    for begin in begins:
        if begins.count(begin) > 1:
            yield f"things: codes: {begin!r} stands twice"
    for kind in (*words.landmarks, *words.estates):
        for name in kind.names:
            if any(("{n}" in form) != (kind.numbers is not None) for form in name):
                yield f"landmarks: {name[0]}: {{n}} must stand in all forms where there are numbers, and in no other"
        if kind.numbers is not None and not 1 <= kind.numbers[0] <= kind.numbers[1] < _SPOKEN_NUMBERS:
            yield f"landmarks: numbers = {list(kind.numbers)} must go from small to large, 1 to {_SPOKEN_NUMBERS - 1}"
    for manner in (words.hotline, words.patrol):
        for order in manner.orders:
            if unknown := sorted(set(order) - set(PARTS)):
                yield f"orders: {unknown[0]} must be one of {', '.join(PARTS)}"
    for choice in (choice for thing in words.things for aspect in thing.aspects for choice in aspect):
        for wording in choice:
            if set(_HOLE.findall(wording)) - {"n", "m"}:
                yield f"things: {wording}: only {{n}} and {{m}} can be filled in"
