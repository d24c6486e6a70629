"""Why a message was refused: the slow, exact look at what typed decoding would not take."""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

from streams.messages import Reason
from streams.privacy import mask_beginning


class Refusal(NamedTuple):
    """The reason, the field it is about (if one) and a sentence for a person."""

    reason: Reason
    field: str | None
    detail: str


_MAX_SHOWN = 64
"""Characters of a wrong value that its refusal shows."""
REFUSES = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that it does not take."""

_any_value = msgspec.json.Decoder(msgspec.Raw)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def object_fields(raw: bytes) -> dict[str, msgspec.Raw] | Refusal:
    """The fields of a JSON object, none of them looked into; the reason if it is no JSON or no object."""
    try:
        _any_value.decode(raw)
        if (kind := json_kind(raw)) != "object":
            return Refusal(Reason.NOT_AN_OBJECT, None, f"a JSON {kind} where an object is due")
        return _fields.decode(raw)
    except RecursionError:
        return Refusal(Reason.MALFORMED_JSON, None, "nested too deeply")
    except REFUSES as error:
        return Refusal(Reason.MALFORMED_JSON, None, str(error))


def explain_refusal(raw: bytes, decoder: msgspec.json.Decoder[Any]) -> Refusal:
    """The reason why ``decoder`` (of a message type) refused ``raw``.

    Looks at the fields in the order of the type, each decoded as the decoder would, and names the first fault; other
    fields are ignored here as there.  Cost: a decode of each field; only for what is refused.
    """
    given = object_fields(raw)
    if isinstance(given, Refusal):
        return given
    for field in msgspec.structs.fields(decoder.type):
        if field.name not in given:
            if field.required:
                return Refusal(Reason.MISSING_FIELD, field.name, f"{field.name} is required")
            continue
        value = bytes(given[field.name])
        try:
            msgspec.json.decode(value, type=field.type)
        except msgspec.ValidationError as error:
            return Refusal(_reason_of(field.name, value, decoder.type), field.name, str(error))
        except REFUSES as error:
            return Refusal(Reason.MALFORMED_JSON, field.name, str(error))
    # Each field alone is right, so the message holds one field twice and a former one is wrong.
    try:
        decoder.decode(raw)
    except REFUSES as error:
        return Refusal(Reason.WRONG_TYPE, _field_named_by(error), f"in a field given twice: {error}")
    raise AssertionError("asked why a message was refused that is not")


def _reason_of(name: str, value: bytes, message_type: type) -> Reason:
    kind = json_kind(value)
    if name == "time":
        return Reason.INVALID_TIME if kind == "string" or _is_whole(value) else Reason.WRONG_TYPE
    bare = _bare_types(message_type)[name]
    if kind == "number" and name in number_fields(message_type):
        # Any number would do, so it is this one.
        return Reason.OUT_OF_RANGE
    try:
        msgspec.json.decode(value, type=bare)
    except REFUSES:
        return Reason.WRONG_TYPE
    return Reason.OUT_OF_RANGE


@cache
def number_fields(message_type: type) -> frozenset[str]:
    """The fields of a message type that hold numbers."""
    bare_types = _bare_types(message_type)
    return frozenset(name for name, bare in bare_types.items() if float in (bare, *get_args(bare)))


@cache
def _bare_types(message_type: type) -> dict[str, Any]:
    return {name: _bare(hint) for name, hint in get_type_hints(message_type, include_extras=True).items()}


def _bare(hint: Any) -> Any:
    """The type without its constraints: what remains wrong with it is the type itself."""
    if get_origin(hint) is Annotated:
        return _bare(get_args(hint)[0])
    if get_origin(hint) is list:
        return list[_bare(get_args(hint)[0])]  # type: ignore[misc]  # a type made at run time
    if args := get_args(hint):
        bare = _bare(args[0])
        for other in args[1:]:
            bare = bare | _bare(other)
        return bare
    return hint


def _field_named_by(error: Exception) -> str | None:
    found = re.search(r"at `\$\.(\w+)", str(error))
    return found[1] if found else None


def _is_whole(number: bytes) -> bool:
    return number.strip().removeprefix(b"-").isdigit()


def json_kind(value: bytes) -> str:
    """``object``, ``array``, ``string``, ``boolean``, ``null`` or ``number``, by the first byte of a JSON value."""
    first = value.lstrip(b" \t\r\n")[:1]
    kinds = {b"{": "object", b"[": "array", b'"': "string", b"t": "boolean", b"f": "boolean", b"n": "null"}
    return kinds.get(first, "number")


def shown(value: str | int | float | None) -> str:
    """A wrong value in a refusal: at most its beginning, without anybody's number."""
    return repr(None if value is None else mask_beginning(str(value), _MAX_SHOWN))
