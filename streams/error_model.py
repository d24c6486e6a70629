"""The error model of the simulation: how sources misreport, as data.

`error_model.toml` is the shipped one; the scenarios that come with it, and everybody's own, are laid over it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib import resources
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from geo.datum import CRS
from streams.messages import SOURCES, Reason
from streams.pack_check import SLA_UNITS

Share = Annotated[float, Meta(ge=0, le=1)]
# The upper bound keeps infinity out, which no loop over seconds would survive; as seconds it is 30 years.
Positive = Annotated[float, Meta(gt=0, le=1e9)]
NotNegative = Annotated[float, Meta(ge=0, le=1e9)]
Number = Annotated[float, Meta(ge=-1e9, le=1e9)]
Range = tuple[NotNegative, NotNegative]
Counts = tuple[Annotated[int, Meta(ge=0)], Annotated[int, Meta(ge=0)]]
Hours = Annotated[list[NotNegative], Meta(min_length=24, max_length=24)]

BREAKABLE = (
    Reason.MALFORMED_JSON,
    Reason.NOT_AN_OBJECT,
    Reason.MISSING_FIELD,
    Reason.WRONG_TYPE,
    Reason.OUT_OF_RANGE,
    Reason.INVALID_TIME,
    Reason.TOO_OLD,
    Reason.FUTURE_TIME,
    Reason.TOO_LARGE,
    Reason.UNSUPPORTED_CRS,
    Reason.UNKNOWN_CATEGORY,
    Reason.UNKNOWN_DEVICE,
    Reason.OUTSIDE_CITY,
)
"""The reasons for which the simulation can break a message."""
FAULTS = (
    "stuck", "not_a_number", "wrong_unit", "clock_ahead", "clock_behind", "far_away", "silent", "trembling", "flapping"
)  # fmt: skip
"""The ways in which a sensor can be at fault."""


class ErrorModelError(ValueError):
    """An error model cannot be used; the message names the file, the key and what is legal there."""


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file; the reasons for its keys stand there."""


class EventModel(_Section, frozen=True, kw_only=True):
    """What happens, whoever reports it."""

    per_day: Annotated[float, Meta(ge=0, le=1_000_000)]
    hours: Hours
    curves: dict[str, Hours]
    curve_of: dict[str, str]
    day_off: NotNegative
    day_off_of: dict[str, NotNegative]
    near_place: Share
    near_place_m: NotNegative
    lasting_windows: Positive
    lasting_max_s: Positive
    apart_radii: NotNegative
    apart_windows: NotNegative
    details: Counts
    weights: dict[str, NotNegative]


class StormModel(_Section, frozen=True, kw_only=True):
    """Rain over a part of the city for some hours."""

    per_day: NotNegative
    categories: dict[str, NotNegative]
    events: Counts
    lasts_s: Positive
    drains_s: Positive
    radius_m: tuple[Positive, Positive]
    beside: Share
    apart_m: Range
    extent_m: Range
    crowd: NotNegative
    reading_every_s: Positive


class LandmarkModel(_Section, frozen=True, kw_only=True):
    """How thick the things are that people name a place by."""

    spacing_m: Annotated[float, Meta(ge=5, le=10_000)]
    estates_spacing_m: Annotated[float, Meta(ge=5, le=10_000)]
    jitter: Share


class PlatformModel(_Section, frozen=True, kw_only=True):
    """One of several platforms that carry a source."""

    share: Share
    crs: str | None = None


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
    platforms: dict[str, PlatformModel] = {}


class PeopleModel(SourceModel, frozen=True, kw_only=True):
    """How many people report one event."""

    reported: Share
    reported_urgent: Share
    further: NotNegative
    further_urgent: NotNegative
    same_again: Share


class SpokenModel(_Section, frozen=True, kw_only=True):
    """How callers say where something is."""

    beside: Share
    alias: Share
    area_first: Share
    road_only: Share
    house_number: Share
    in_numerals: Share
    full_width: Share
    misheard: Share
    unknown: Share


class TextModel(_Section, frozen=True, kw_only=True):
    """What whoever tells of an event says of it, and how he errs."""

    terse: Share
    own_word: Share
    opening: Share
    when: Share
    closing: Share
    landmark: Share
    seen_from_m: NotNegative
    estate: Share
    between: Share
    second: Share
    beside: Share
    side: Share
    steps: Share
    side_wrong: Share
    other_name: Share
    misheard: Share
    detail: Share
    detail_further: Share
    plain: Share
    mistaken: Share
    miscounted: Share
    in_numerals: Share


class CallerTextModel(TextModel, frozen=True, kw_only=True):
    """What callers say besides."""

    address: Share
    phone: Share
    again_said: Share
    read_out: Share
    read_out_of: list[str]
    read_out_within_m: NotNegative
    misread: Share
    noted: Share


class WorkerTextModel(TextModel, frozen=True, kw_only=True):
    """What grid workers leave out, and what they pick."""

    silent: Share
    asset: Share
    asset_classes: list[str]
    asset_within_m: NotNegative
    neighbour: Share
    neighbour_within_m: NotNegative


class HotlineModel(PeopleModel, frozen=True, kw_only=True):
    """Callers and whoever writes their tickets."""

    address_only: Share
    address_too: Share
    nowhere: Share
    label_unknown: Share
    amended: Share
    another_thing: Share
    no_event: Annotated[float, Meta(ge=0, lt=1)]
    spoken: SpokenModel
    texts: CallerTextModel


class RoundModel(_Section, frozen=True, kw_only=True):
    """What grid workers file in rows, and nobody calls about."""

    per_day: NotNegative
    cases: Counts
    apart_m: Range
    apart_s: Range
    further: NotNegative
    kinds: dict[str, NotNegative]


class PatrolModel(PeopleModel, frozen=True, kw_only=True):
    """Grid workers on their rounds."""

    hours: tuple[Annotated[int, Meta(ge=0, le=24)], Annotated[int, Meta(ge=0, le=24)]]
    found_after_s: NotNegative
    texts: WorkerTextModel
    rounds: RoundModel


class MachineModel(SourceModel, frozen=True, kw_only=True):
    """What a machine within reach notices, and says again while it lasts."""

    reach_m: Positive
    seen: Share
    again_s: Positive
    again_most: Annotated[int, Meta(ge=0)]
    own_position: Share
    two_platforms: Share
    two_platforms_s: NotNegative


class VideoModel(MachineModel, frozen=True, kw_only=True):
    """Cameras and their analytics."""

    confidence: tuple[Share, Share]
    confidence_false: tuple[Share, Share]
    false_again: Share


class ReadingModel(_Section, frozen=True, kw_only=True):
    """What a kind of device measures: when nothing is wrong, in the rain, and while something happens."""

    metric: str
    unit: str
    low: Number
    high: Number
    wet: tuple[Number, Number] | None = None
    during: dict[str, tuple[Number, Number]] = {}


class FaultModel(_Section, frozen=True, kw_only=True):
    """Sensors that are at fault for some hours."""

    share: Share
    lasts_s: Positive
    kinds: dict[str, NotNegative]
    ahead_s: Positive
    behind_s: Positive
    far_m: Positive
    unit_told: Share
    units: dict[str, tuple[str, Positive]]
    flap_s: Positive


class IotModel(MachineModel, frozen=True, kw_only=True):
    """Sensors and their gateways."""

    at_device: Share
    cleared: Share
    alarms_itself: Share
    flaps: Share
    flaps_most: Annotated[int, Meta(ge=0)]
    reading_every_s: Positive
    on_change: Annotated[int, Meta(ge=0)]
    rise_s: Positive
    gateway_devices: Annotated[int, Meta(ge=1)]
    gateways_batch: Share
    batch_s: Positive
    senses: dict[str, list[str]]
    readings: dict[str, ReadingModel]
    faults: FaultModel


class BrokenModel(_Section, frozen=True, kw_only=True):
    """Messages that nobody can use."""

    share: Share
    reasons: dict[str, NotNegative]


class DispatchModel(_Section, frozen=True, kw_only=True):
    """What dispatch centres do with incidents, and how they tell of it."""

    first_look_s: Annotated[float, Meta(ge=10, le=86_400)]
    accept_s: NotNegative
    accept_urgent_s: NotNegative
    dispatch_s: NotNegative
    limit_s: dict[str, Positive]
    limit_none_s: Positive
    takes_of_limit: Positive
    close_s: NotNegative
    rejected: Share
    found_out: Share
    duplicate_seen: Share
    duplicate_mistaken: Share
    misjoined_seen: Share
    left_lying: Share
    skipped: Share
    only_said: Share
    complaints: NotNegative
    complains_s: Positive
    called_back: Share
    recurs: Share
    recurs_s: Positive
    delay_s: NotNegative
    late: Share
    late_max_s: Positive
    overtaken: Share
    sent_again: Share
    unknown: Share


class ErrorModel(_Section, frozen=True, kw_only=True):
    """The whole file."""

    events: EventModel
    storm: StormModel
    landmarks: LandmarkModel
    hotline: HotlineModel
    patrol: PatrolModel
    video: VideoModel
    iot: IotModel
    broken: BrokenModel
    dispatch: DispatchModel


SCENARIOS = {"normal-week": "scenario_normal_week.toml", "storm": "scenario_storm.toml"}
"""What is shipped to be laid over the error model, by name."""


def shipped_text(name: str = "error_model.toml") -> str:
    """The text of a file that comes with the service: the error model, a template for one's own, or a scenario."""
    return resources.files("streams").joinpath(name).read_text(encoding="utf-8")


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
    problem = next(_problems(model), None)
    if problem is not None:
        raise ErrorModelError(f"{name}: {problem}")
    return model


def _problems(model: ErrorModel) -> Iterator[str]:
    """What the types cannot say is wrong."""
    for place, (low, high) in _ranges(model):
        if low > high:
            yield f"{place} = [{low:g}, {high:g}] must go from small to large"
    for reason in model.broken.reasons:
        if reason not in BREAKABLE:
            yield f"broken.reasons.{reason} must be one of {', '.join(BREAKABLE)}"
    for kind in model.iot.faults.kinds:
        if kind not in FAULTS:
            yield f"iot.faults.kinds.{kind} must be one of {', '.join(FAULTS)}"
    for source in SOURCES:
        part: SourceModel = getattr(model, source)
        if unknown := sorted(set(part.datums) - {*CRS, "default"}):
            yield f"{source}.datums.{unknown[0]} must be default or one of {', '.join(CRS)}"
        if sum(part.datums.values()) == 0:
            yield f"{source}.datums must not all be 0"
        for name, platform in part.platforms.items():
            if platform.crs not in (None, *CRS):
                yield f"{source}.platforms.{name}.crs = {platform.crs!r} must be one of {', '.join(CRS)}"
        if sum(platform.share for platform in part.platforms.values()) > 1:
            yield f"{source}.platforms: the shares must not add up to more than 1"
    for source, texts in (("hotline", model.hotline.texts), ("patrol", model.patrol.texts)):
        if texts.between + texts.second > 1:
            yield f"{source}.texts: between and second must not add up to more than 1"
        if texts.beside + texts.side + texts.steps > 1:
            yield f"{source}.texts: beside, side and steps must not add up to more than 1"
    events = model.events
    if sum(events.hours) == 0:
        yield "events.hours must not all be 0; events.per_day = 0 gives a day without events"
    for name, hours in events.curves.items():
        if sum(hours) == 0:
            yield f"events.curves.{name} must not all be 0"
    for code, name in events.curve_of.items():
        if name not in events.curves:
            yield f"events.curve_of.{code} = {name!r} must be one of {', '.join(events.curves)}"
    for unit in model.dispatch.limit_s:
        if unit not in SLA_UNITS:
            yield f"dispatch.limit_s.{unit} must be one of {', '.join(SLA_UNITS)}"


def _ranges(part: Any, place: str = "") -> Iterator[tuple[str, tuple[float, float]]]:
    """Every pair of numbers in the model, with the place where it stands."""
    if isinstance(part, _Section):
        for key in part.__struct_fields__:
            yield from _ranges(getattr(part, key), f"{place}.{key}" if place else key)
        if isinstance(part, ReadingModel):
            yield place, (part.low, part.high)
    elif isinstance(part, dict):
        for key, value in part.items():
            yield from _ranges(value, f"{place}.{key}")
    elif isinstance(part, tuple) and not isinstance(part[0], str):
        yield place, part


def _overlaid(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """``below`` with the keys of ``above`` over it; tables are overlaid in turn, all else is replaced."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = _overlaid(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result
