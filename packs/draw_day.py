"""Draws `docs/sample-day.svg`, a simulated morning in the sample city's grid: `python -m packs.draw_day`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from streams.error_model import read_error_model
from streams.messages import Incident
from streams.pack import CityPack, load_pack
from streams.privacy import TEST_KEY
from streams.replay import Replay
from streams.simulation import simulate

ROOT = Path(__file__).resolve().parent.parent
HOURS = 6.0
START = datetime.fromisoformat("2026-06-01T06:00:00+08:00")
WIDTH = 900.0
MARGIN = 14.0
LEGEND = 64.0
COLOURS = {1: "#8a94a6", 2: "#2f7ed8", 3: "#e8590c", 4: "#c2255c"}
"""By the number of sources that reported an incident."""


def draw() -> str:
    """The picture, as SVG text."""
    pack = load_pack(ROOT / "packs" / "sample")
    day = simulate(pack, read_error_model(), seed=1, start=START, hours=HOURS)
    replay = Replay(pack, TEST_KEY)
    assignments, _ = replay.take(day.messages)
    incidents = [incident for incident in replay.incidents() if incident.lon is not None]
    west, south, east, north = pack.grid.bounds
    scale = (WIDTH - 2 * MARGIN) / (east - west)
    stretch = 1 / np.cos(np.radians((south + north) / 2))
    height = (north - south) * scale * stretch + 2 * MARGIN + LEGEND

    def place(lon: float, lat: float) -> tuple[float, float]:
        return MARGIN + (lon - west) * scale, MARGIN + LEGEND + (north - lat) * scale * stretch

    title = f"{len(assignments):,} reports of four sources in {HOURS:g} hours: {len(incidents):,} incidents"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height:.0f}" font-family="sans-serif">',
        f'<rect width="{WIDTH:.0f}" height="{height:.0f}" fill="#fbfbf9"/>',
        f'<text x="{MARGIN}" y="28" font-size="18" fill="#222">{escape(title)}</text>',
        *_legend(),
        *_cells(pack, place),
        *_dots(incidents, place),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _legend() -> list[str]:
    parts = []
    for number, colour in COLOURS.items():
        x = MARGIN + 8 + (number - 1) * 130
        text = "one source" if number == 1 else f"{number} sources"
        parts.append(f'<circle cx="{x}" cy="50" r="5" fill="{colour}"/>')
        parts.append(f'<text x="{x + 11}" y="55" font-size="13" fill="#444">{text}</text>')
    x = MARGIN + 8 + len(COLOURS) * 130
    parts.append(f'<text x="{x}" y="55" font-size="13" fill="#444">a larger dot: more reports</text>')
    return parts


def _cells(pack: CityPack, place: object) -> list[str]:
    assert callable(place)
    parts = []
    strokes = {"grid": ("#d9dce2", 0.5), "community": ("#aab1bd", 0.9), "street": ("#6b7485", 1.6)}
    for level, (colour, width) in strokes.items():
        path = []
        for number in np.flatnonzero(pack.grid.level == pack.grid.levels.index(level)).tolist():
            geometry = pack.grid.geometries[number]
            for polygon in getattr(geometry, "geoms", [geometry]):
                points = [place(lon, lat) for lon, lat in polygon.exterior.coords]
                path.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points[:-1]) + "Z")
        parts.append(f'<path fill="none" stroke="{colour}" stroke-width="{width}" d="{"".join(path)}"/>')
    return parts


def _dots(incidents: list[Incident], place: object) -> list[str]:
    assert callable(place)
    parts = []
    for incident in sorted(incidents, key=lambda each: (len(each.sources), each.incident_id)):
        x, y = place(incident.lon, incident.lat)
        radius = 1.6 + 1.1 * np.sqrt(incident.report_count - 1)
        colour = COLOURS[len(incident.sources)]
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{colour}" fill-opacity="0.75"/>')
    return parts


if __name__ == "__main__":
    (ROOT / "docs" / "sample-day.svg").write_text(draw(), encoding="utf-8")
