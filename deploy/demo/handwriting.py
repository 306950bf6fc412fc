"""Draws a made-up handwritten signature: blue ink on a transparent ground, as Decree 30/2020/NĐ-CP wants it."""

import math
from itertools import pairwise
from pathlib import Path

from PIL import Image, ImageDraw

INK = (24, 44, 140)
SIZE = (640, 260)
_OVERSAMPLING = 4
_NIB = 7.5
_NIB_ANGLE = math.radians(38)
_SLANT = 0.16

Point = tuple[float, float]

# The pen's way, stroke by stroke: the D with its bowl, its bar, "ôn" with the tail that comes back below, the
# circumflex.
STROKES: tuple[tuple[Point, ...], ...] = (
    (
        (150, 28), (140, 70), (122, 130), (100, 178), (76, 190), (70, 172), (96, 160), (150, 172), (214, 158),
        (254, 104), (236, 48), (176, 20), (104, 30), (52, 66), (40, 96), (58, 108),
    ),
    ((84, 112), (124, 100), (172, 98)),
    (
        (318, 104), (292, 104), (276, 130), (288, 156), (314, 146), (324, 116), (312, 102), (330, 116), (352, 108),
        (362, 104), (360, 130), (354, 158), (366, 122), (384, 104), (398, 112), (394, 140), (402, 158), (430, 140),
        (480, 100), (548, 62), (596, 54), (600, 78), (540, 128), (430, 186), (300, 216), (180, 222), (128, 214),
        (170, 204), (290, 206), (372, 214),
    ),
    ((284, 82), (306, 56), (328, 80)),
)  # fmt: skip


def draw(path: Path) -> None:
    """Writes the signature as a PNG."""
    scale = _OVERSAMPLING
    mask = Image.new("L", (SIZE[0] * scale, SIZE[1] * scale), 0)
    pen = ImageDraw.Draw(mask)
    for stroke in STROKES:
        way = _smooth(stroke)
        for place, (here, there) in enumerate(pairwise(way)):
            # A broad nib: thin along its edge, thick across it, and lifted at both ends of a stroke.
            direction = math.atan2(there[1] - here[1], there[0] - here[0])
            lift = min(1.0, 0.25 + place / 25, 0.15 + (len(way) - place) / 60)
            width = (0.32 + 0.68 * abs(math.sin(direction + _NIB_ANGLE))) * lift * _NIB * scale / 2
            x, y = here[0] * scale, here[1] * scale
            pen.ellipse((x - width, y - width, x + width, y + width), fill=255)
    ink = Image.new("RGBA", SIZE, (*INK, 0))
    ink.putalpha(mask.resize(SIZE, Image.Resampling.LANCZOS))
    ink.save(path, optimize=True)


def _smooth(points: tuple[Point, ...]) -> list[Point]:
    """Returns a dense Catmull-Rom curve through the points."""
    padded = (points[0], *points, points[-1])
    curve = []
    for before, start, end, after in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        steps = max(8, int(math.dist(start, end) * 2))
        for step in range(steps):
            t = step / steps
            x = _catmull_rom(before[0], start[0], end[0], after[0], t)
            y = _catmull_rom(before[1], start[1], end[1], after[1], t)
            curve.append((x + _SLANT * (SIZE[1] / 2 - y), y))
    return curve


def _catmull_rom(before: float, start: float, end: float, after: float, t: float) -> float:
    return 0.5 * (
        2 * start
        + (end - before) * t
        + (2 * before - 5 * start + 4 * end - after) * t**2
        + (3 * start - before - 3 * end + after) * t**3
    )
