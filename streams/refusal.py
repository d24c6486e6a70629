"""Why a message was refused: the slow, exact look at what typed decoding would not take."""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

from streams.messages import Reason


class Refusal(NamedTuple):
    """The reason, the field it is about (if one) and a sentence for a person."""

    reason: Reason
    field: str | None
    detail: str


def explain_refusal(raw: bytes, decoder: msgspec.json.Decoder[Any]) -> Refusal:
    """The reason why ``decoder`` (of a message type) refused ``raw``.

    Looks at the fields in the order of the type and names the first fault.  Cost: a second, untyped decode; only for
    what is refused.
    """
    try:
        value = msgspec.json.decode(raw)
    except msgspec.ValidationError as error:  # a number beyond float64
        return Refusal(Reason.OUT_OF_RANGE, _field_named_by(raw, decoder), str(error))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Refusal(Reason.MALFORMED_JSON, None, str(error))
    if not isinstance(value, dict):
        return Refusal(Reason.NOT_AN_OBJECT, None, f"a JSON {_json_kind(value)} where an object is due")
    for field in msgspec.structs.fields(decoder.type):
        if field.name not in value:
            if field.required:
                return Refusal(Reason.MISSING_FIELD, field.name, f"{field.name} is required")
            continue
        try:
            msgspec.convert(value[field.name], field.type)
        except msgspec.ValidationError as error:
            return Refusal(_reason_of(field.name, value[field.name], decoder.type), field.name, str(error))
    # Each field alone is right, so the message holds one field twice and a former one is wrong.
    try:
        decoder.decode(raw)
    except msgspec.MsgspecError as error:
        return Refusal(Reason.WRONG_TYPE, _field_named_by(raw, decoder), f"in a field given twice: {error}")
    raise AssertionError("asked why a message was refused that is not")


def _reason_of(name: str, value: Any, message_type: type) -> Reason:
    if name == "time":
        is_time = isinstance(value, str | int) and not isinstance(value, bool)
        return Reason.INVALID_TIME if is_time else Reason.WRONG_TYPE
    try:
        msgspec.convert(value, _bare_types(message_type)[name])
    except msgspec.ValidationError:
        return Reason.WRONG_TYPE
    return Reason.OUT_OF_RANGE


@cache
def _bare_types(message_type: type) -> dict[str, Any]:
    return {name: _bare(hint) for name, hint in get_type_hints(message_type, include_extras=True).items()}


def _bare(hint: Any) -> Any:
    """The type without its constraints: what remains wrong with it is the type itself."""
    if get_origin(hint) is Annotated:
        return _bare(get_args(hint)[0])
    if args := get_args(hint):
        bare = _bare(args[0])
        for other in args[1:]:
            bare = bare | _bare(other)
        return bare
    return hint


def _field_named_by(raw: bytes, decoder: msgspec.json.Decoder[Any]) -> str | None:
    try:
        decoder.decode(raw)
    except msgspec.MsgspecError as error:
        if found := re.search(r"at `\$\.(\w+)", str(error)):
            return found[1]
    return None


def _json_kind(value: Any) -> str:
    if value is None:
        return "null"
    return {bool: "boolean", str: "string", list: "array"}.get(type(value), "number")
