"""An error model of another city: what sources do wrong, drawn anew around the shipped figures by a seed.

The shipped figures come from somewhere; those of the next city will be others.  Every share of the four sources is
moved by a normal draw on the log-odds scale, every duration, distance and count that is not whole by a factor; a share
of none or of all stays, and so do what sensors measure, the datums, and what happens in the city.
"""

from __future__ import annotations

import math
from typing import Any, get_args, get_type_hints

import msgspec
import numpy as np

from streams.error_model import ErrorModel, PlatformModel, ReadingModel
from streams.messages import SOURCES

SHARE_SPREAD = 0.5
"""Standard deviation in log-odds: 10 % becomes 4 to 23 % nineteen times of twenty."""
FACTOR_SPREAD = 0.3
"""Standard deviation of the logarithm: 100 m becomes 56 to 180 m as often."""
_STAYS = (ReadingModel, PlatformModel)


def varied(model: ErrorModel, seed: int) -> ErrorModel:
    """The model with the sections of the four sources drawn anew; the same seed gives the same model."""
    draw = np.random.default_rng(seed)
    return msgspec.structs.replace(model, **{source: _drawn(getattr(model, source), draw) for source in SOURCES})


def _drawn(section: Any, draw: np.random.Generator) -> Any:
    changed: dict[str, Any] = {}
    hints = get_type_hints(type(section), include_extras=True)
    for name in section.__struct_fields__:
        value = getattr(section, name)
        if isinstance(value, msgspec.Struct) and not isinstance(value, _STAYS):
            changed[name] = _drawn(value, draw)
        elif isinstance(value, float):
            changed[name] = _moved((value,), hints[name], draw)[0]
        elif isinstance(value, tuple) and value and all(isinstance(one, float) for one in value):
            changed[name] = _moved(value, get_args(hints[name])[0], draw)
    return msgspec.structs.replace(section, **changed)


def _moved(values: tuple[float, ...], hint: Any, draw: np.random.Generator) -> tuple[float, ...]:
    """One draw for a figure, or for both ends of a range, which so stays one."""
    normal = float(draw.standard_normal())
    if any(isinstance(one, msgspec.Meta) and 1 in (one.le, one.lt) for one in get_args(hint)[1:]):
        return tuple(_shifted(one, SHARE_SPREAD * normal) for one in values)
    return tuple(one * math.exp(FACTOR_SPREAD * normal) for one in values)


def _shifted(share: float, by: float) -> float:
    if share in (0.0, 1.0):
        return share
    return 1 / (1 + (1 - share) / share * math.exp(-by))
