"""Chance, as the simulation draws it: one generator, so that the same seed gives the same city."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TypeVar

import numpy as np

_T = TypeVar("_T")


class Chance:
    """A generator and the few ways in which the simulation asks it.  Same seed and same questions, same answers."""

    def __init__(self, *seed: int) -> None:
        self.rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))

    def happens(self, share: float) -> bool:
        """True in ``share`` (0 to 1) of the cases."""
        return bool(self.rng.random() < share)

    def pick(self, things: Sequence[_T]) -> _T:
        """One of the things, all equally likely."""
        return things[int(self.rng.integers(len(things)))]

    def weighted(self, weights: Mapping[str, float]) -> str:
        """One of the names, as likely as its weight says; some weight is over 0."""
        names = list(weights)
        sums = list(accumulate(weights.values()))
        return names[min(bisect_right(sums, self.between(0, sums[-1])), len(names) - 1)]

    def wait_ms(self, mean_s: float) -> int:
        """A waiting time, exponential, Unix ms."""
        return round(float(self.rng.exponential(mean_s)) * 1000)

    def between(self, low: float, high: float) -> float:
        """Uniform, ``low`` included."""
        return float(self.rng.uniform(low, high))

    def small_between(self, low: float, high: float) -> float:
        """Uniform in the logarithm, so that small values are the more frequent; both over 0."""
        return math.exp(self.between(math.log(low), math.log(high)))

    def whole(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return int(self.rng.integers(low, high + 1))

    def count(self, mean: float) -> int:
        """How many of rare things there are: Poisson."""
        return int(self.rng.poisson(mean))

    def near(self, expected: float) -> int:
        """``expected``, rounded up or down so that the mean is right."""
        return math.floor(expected) + self.happens(expected % 1)

    def offset(self, sigma: float) -> tuple[float, float]:
        """Two independent normal deviates."""
        one, other = self.rng.normal(0.0, sigma, 2).tolist()
        return one, other
