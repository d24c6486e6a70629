"""The error model of the simulation: how sources misreport, as data (`error_model.toml` is the shipped one)."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from geo.datum import CRS
from streams.messages import SOURCES, Reason

Share = Annotated[float, Meta(ge=0, le=1)]
# The upper bound keeps infinity out, which no loop over seconds would survive; as seconds it is 30 years.
Positive = Annotated[float, Meta(gt=0, le=1e9)]
NotNegative = Annotated[float, Meta(ge=0, le=1e9)]
Range = tuple[NotNegative, NotNegative]

BREAKABLE = (
    Reason.MALFORMED_JSON,
    Reason.NOT_AN_OBJECT,
    Reason.MISSING_FIELD,
    Reason.WRONG_TYPE,
    Reason.OUT_OF_RANGE,
    Reason.INVALID_TIME,
    Reason.TOO_OLD,
    Reason.FUTURE_TIME,
    Reason.UNSUPPORTED_CRS,
    Reason.UNKNOWN_CATEGORY,
    Reason.UNKNOWN_DEVICE,
    Reason.OUTSIDE_CITY,
)
"""The reasons for which the simulation can break a message."""


class ErrorModelError(ValueError):
    """An error model cannot be used; the message names the file, the key and what is legal there."""


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file; the reasons for its keys stand there."""


class EventModel(_Section, frozen=True, kw_only=True):
    """What happens, whoever reports it."""

    per_day: Annotated[float, Meta(ge=0, le=1_000_000)]
    hours: Annotated[list[NotNegative], Meta(min_length=24, max_length=24)]
    near_place: Share
    near_place_m: NotNegative
    lasting_windows: Positive
    lasting_max_s: Positive
    apart_radii: NotNegative
    apart_windows: NotNegative
    weights: dict[str, NotNegative]


class StormModel(_Section, frozen=True, kw_only=True):
    """Many events of one category at once."""

    per_day: NotNegative
    category: str
    events: tuple[Annotated[int, Meta(ge=0)], Annotated[int, Meta(ge=0)]]
    lasts_s: Positive
    crowd: NotNegative


class SourceModel(_Section, frozen=True, kw_only=True):
    """How any source errs."""

    delay_s: NotNegative
    late: Share
    late_max_s: Positive
    accuracy_m: tuple[Positive, Positive]
    accuracy_told: Share
    mislabelled: Share
    mislabelled_far: Share
    false_alarms: Annotated[float, Meta(ge=0, lt=1)]
    sent_again: Share
    datum_undeclared: Share
    datums: dict[str, NotNegative]


class PeopleModel(SourceModel, frozen=True, kw_only=True):
    """How many people report one event."""

    reported: Share
    reported_urgent: Share
    further: NotNegative
    further_urgent: NotNegative
    same_again: Share


class HotlineModel(PeopleModel, frozen=True, kw_only=True):
    """Callers and whoever writes their tickets."""

    address_only: Share
    nowhere: Share
    label_unknown: Share
    no_event: Annotated[float, Meta(ge=0, lt=1)]


class PatrolModel(PeopleModel, frozen=True, kw_only=True):
    """Grid workers on their rounds."""

    hours: tuple[Annotated[int, Meta(ge=0, le=24)], Annotated[int, Meta(ge=0, le=24)]]
    found_after_s: NotNegative


class MachineModel(SourceModel, frozen=True, kw_only=True):
    """What a machine within reach notices, and says again while it lasts."""

    reach_m: Positive
    seen: Share
    again_s: Positive
    again_most: Annotated[int, Meta(ge=0)]
    own_position: Share


class VideoModel(MachineModel, frozen=True, kw_only=True):
    """Cameras and their analytics."""

    confidence: tuple[Share, Share]
    confidence_false: tuple[Share, Share]


class ReadingModel(_Section, frozen=True, kw_only=True):
    """The ordinary reading of a kind of device."""

    metric: str
    unit: str
    low: float
    high: float


class IotModel(MachineModel, frozen=True, kw_only=True):
    """Sensors and their gateways."""

    at_device: Share
    cleared: Share
    reading_every_s: Positive
    gateway_devices: Annotated[int, Meta(ge=1)]
    gateways_batch: Share
    batch_s: Positive
    senses: dict[str, list[str]]
    readings: dict[str, ReadingModel]


class BrokenModel(_Section, frozen=True, kw_only=True):
    """Messages that nobody can use."""

    share: Share
    reasons: dict[str, NotNegative]


class ErrorModel(_Section, frozen=True, kw_only=True):
    """The whole file."""

    events: EventModel
    storm: StormModel
    hotline: HotlineModel
    patrol: PatrolModel
    video: VideoModel
    iot: IotModel
    broken: BrokenModel


def shipped_text() -> str:
    """The text of the error model that comes with the service: a template for one's own."""
    return resources.files("streams").joinpath("error_model.toml").read_text(encoding="utf-8")


def read_error_model(text: str | None = None, *, name: str = "error_model.toml") -> ErrorModel:
    """The shipped error model, overlaid key by key with the TOML in ``text``.

    Raises
    ------
    ErrorModelError
        If ``text`` is no TOML, or a key is unknown or its value out of range.
    """
    table = tomllib.loads(shipped_text())
    try:
        if text is not None:
            table = _overlaid(table, tomllib.loads(text))
        model = msgspec.convert(table, ErrorModel)
    except tomllib.TOMLDecodeError as error:
        raise ErrorModelError(f"{name}: not TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise ErrorModelError(f"{name}: {str(error).replace('$.', '')}") from error
    for section, key, (low, high) in _ranges(model):
        if low > high:
            raise ErrorModelError(f"{name}: {section}.{key} = [{low:g}, {high:g}] must go from small to large")
    for reason in model.broken.reasons:
        if reason not in BREAKABLE:
            raise ErrorModelError(f"{name}: broken.reasons.{reason} must be one of {', '.join(BREAKABLE)}")
    for source in SOURCES:
        datums = getattr(model, source).datums
        if unknown := sorted(set(datums) - {*CRS, "default"}):
            raise ErrorModelError(f"{name}: {source}.datums.{unknown[0]} must be default or one of {', '.join(CRS)}")
        if sum(datums.values()) == 0:
            raise ErrorModelError(f"{name}: {source}.datums must not all be 0")
    if sum(model.events.hours) == 0:
        raise ErrorModelError(f"{name}: events.hours must not all be 0; events.per_day = 0 gives a day without events")
    return model


def _ranges(model: ErrorModel) -> list[tuple[str, str, tuple[float, float]]]:
    found: list[tuple[str, str, tuple[float, float]]] = []
    for section in model.__struct_fields__:
        part = getattr(model, section)
        for key in part.__struct_fields__:
            value = getattr(part, key)
            if isinstance(value, tuple):
                found.append((section, key, value))
    for kind, reading in model.iot.readings.items():
        found.append(("iot.readings", kind, (reading.low, reading.high)))
    return found


def _overlaid(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """``below`` with the keys of ``above`` over it; tables are overlaid in turn, all else is replaced."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = _overlaid(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result
