"""What one check of `citybrain doctor` found: how it stands, what is the matter, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How a checked thing stands."""

    OK = "ok"
    WARNING = "warning"
    """It works, and will not always, or not as it should."""
    FAULT = "fault"
    """A worker does not start, or loses something."""
    UNKNOWN = "unknown"
    """Not looked at, for something else must be right first."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of what is, and for a warning or a fault one line of what to do."""

    check: str
    state: State
    what: str
    remedy: str = ""


def ok(check: str, what: str) -> Finding:
    """All is well."""
    return Finding(check, State.OK, what)


def warning(check: str, what: str, remedy: str) -> Finding:
    """Something that should be mended."""
    return Finding(check, State.WARNING, what, remedy)


def fault(check: str, what: str, remedy: str) -> Finding:
    """Something that must be mended."""
    return Finding(check, State.FAULT, what, remedy)


def unknown(check: str, what: str) -> Finding:
    """Not looked at, and why."""
    return Finding(check, State.UNKNOWN, what)
