"""Where the tables and keys of a TOML text stand: tomllib reads the values but does not tell the lines."""

from __future__ import annotations

import re
from collections.abc import Sequence

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*((?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+))*)\s*=""")
_PART = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([^.\s"']+))\s*(?:\.|$)""")

Path = tuple[str | int, ...]
"""Keys and array positions from the outermost table on, as one would index the parsed value."""


def _parts(dotted: str) -> list[str]:
    return [
        next(group for group in match.groups() if group is not None) for match in _PART.finditer(dotted) if match[0]
    ]


class TomlLines:
    """Answers on which line a path of a TOML text was written.

    Headers, array tables, dotted keys and plain keys are known; what stands inside an inline table or an array is
    answered with the line of the key that holds it.
    """

    def __init__(self, text: str) -> None:
        self._line_of: dict[Path, int] = {}
        counts: dict[Path, int] = {}
        table: Path = ()
        closing: str | None = None
        depth = 0
        for number, line in enumerate(text.splitlines(), start=1):
            if closing is not None:
                # Inside a text of several lines nothing is a header, whatever it looks like.
                if closing in line:
                    closing = None
                continue
            if depth == 0 and (header := _HEADER.match(line)):
                path: Path = ()
                parts = _parts(header[2])
                for i, part in enumerate(parts):
                    path = (*path, part)
                    if i == len(parts) - 1 and header[1] == "[[":
                        counts[path] = counts.get(path, -1) + 1
                    if path in counts:
                        self._line_of.setdefault(path, number)
                        path = (*path, counts[path])
                    self._line_of.setdefault(path, number)
                table = path
                continue
            rest = line
            if depth == 0 and (key := _KEY.match(line)):
                path = table
                for part in _parts(key[1]):
                    path = (*path, part)
                    self._line_of.setdefault(path, number)
                rest = line[key.end() :]
            depth, closing = _scan_value(rest, depth)

    def line(self, path: Sequence[str | int]) -> int | None:
        """The line of the path, or of the nearest table around it; None for the text as a whole."""
        wanted = tuple(path)
        while wanted:
            if wanted in self._line_of:
                return self._line_of[wanted]
            wanted = wanted[:-1]
        return None


def _scan_value(text: str, depth: int) -> tuple[int, str | None]:
    """Follow brackets and texts through (part of) a value: how deep it ends, and the mark of an unfinished text."""
    at = 0
    while at < len(text):
        if text.startswith(('"""', "'''"), at):
            mark = text[at : at + 3]
            end = text.find(mark, at + 3)
            if end < 0:
                return depth, mark
            at = end + 3
        elif text[at] == "#":
            break
        elif text[at] in "\"'":
            quote = text[at]
            at += 1
            while at < len(text) and text[at] != quote:
                at += 2 if quote == '"' and text[at] == "\\" else 1
            at += 1
        else:
            depth += (text[at] in "[{") - (text[at] in "]}")
            at += 1
    return max(depth, 0), None
