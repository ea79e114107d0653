"""Pictures of scenes: flat shapes with a little light and shade, anti-aliased by supersampling.

Each kind of thing is a table of primitives in a unit box (x to the right, y down). Colours are
named by their role, so that one table serves every colour of the kind.
"""

import io
import itertools
import random
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scenes import INDOOR_PLACES, KINDS, SIDES, Scene, Thing

Colour = tuple[int, int, int]
Primitive = tuple[str, str, tuple[float, ...]]

PICTURE_PX = 256
_SUPERSAMPLE = 3

COLOUR_VALUES: dict[str, Colour] = {
    "red": (214, 48, 49),
    "blue": (45, 98, 205),
    "green": (52, 150, 72),
    "yellow": (245, 205, 48),
    "orange": (240, 134, 36),
    "purple": (131, 66, 176),
    "pink": (242, 140, 182),
    "white": (243, 243, 240),
    "black": (44, 44, 50),
    "brown": (139, 92, 54),
    "grey": (138, 142, 148),
}
_FIXED: dict[str, Colour] = {
    "ink": (34, 34, 40),
    "snow": (250, 250, 250),
    "glass": (178, 216, 236),
    "wood": (122, 78, 46),
    "skin": (232, 188, 152),
    "hair": (82, 54, 36),
    "metal": (110, 114, 120),
    "leaf": (58, 130, 62),
    "trousers": (58, 66, 92),
    "gold": (250, 196, 60),
}


def _quadruped(legs: float, body: float, head: float) -> list[Primitive]:
    feet = [("rect", "dark", (x, legs, x + 0.09, 1.0)) for x in (0.2, 0.33, 0.6, 0.73)]
    return [
        *feet,
        ("line", "dark", (0.16, body + 0.08, 0.02, body - 0.12, 0.07)),
        ("ellipse", "main", (0.1, body, 0.85, legs + 0.1)),
        ("poly", "main", (0.62, body + 0.12, 0.74, head + 0.05, 0.92, head + 0.2, 0.82, legs)),
        ("ellipse", "main", (0.66, head, 0.98, head + 0.3)),
        ("ellipse", "ink", (0.82, head + 0.09, 0.87, head + 0.15)),
        ("ellipse", "dark", (0.9, head + 0.14, 1.0, head + 0.25)),
    ]


def _person(hair: float, skirt: bool) -> list[Primitive]:
    legs: list[Primitive] = [
        ("rect", "trousers", (0.3, 0.62, 0.47, 0.97)),
        ("rect", "trousers", (0.53, 0.62, 0.7, 0.97)),
        ("rect", "ink", (0.24, 0.95, 0.47, 1.0)),
        ("rect", "ink", (0.53, 0.95, 0.76, 1.0)),
    ]
    dress: list[Primitive] = [("poly", "main", (0.3, 0.5, 0.7, 0.5, 0.95, 0.8, 0.05, 0.8))]
    return [
        ("ellipse", "hair", (0.24, 0.0, 0.76, hair)),
        *legs,
        ("line", "skin", (0.2, 0.4, 0.05, 0.6, 0.1)),
        ("line", "skin", (0.8, 0.4, 0.95, 0.6, 0.1)),
        ("rrect", "main", (0.18, 0.28, 0.82, 0.66, 0.12)),
        *(dress if skirt else []),
        ("ellipse", "skin", (0.3, 0.04, 0.7, 0.28)),
        ("pie", "hair", (0.28, 0.01, 0.72, 0.25, 180, 360)),
    ]


def _wheels(*centres: float) -> list[Primitive]:
    shapes: list[Primitive] = []
    for x in centres:
        shapes.append(("ellipse", "ink", (x - 0.1, 0.7, x + 0.1, 1.0)))
        shapes.append(("ellipse", "metal", (x - 0.045, 0.78, x + 0.045, 0.92)))
    return shapes


_EARS = {
    "dog": [("ellipse", "dark", (0.66, 0.08, 0.77, 0.36))],
    "cat": [
        ("poly", "main", (0.68, 0.18, 0.72, -0.04, 0.8, 0.1)),
        ("poly", "main", (0.84, 0.1, 0.93, -0.04, 0.95, 0.18)),
    ],
    "horse": [("poly", "dark", (0.58, 0.42, 0.64, 0.0, 0.76, 0.02, 0.68, 0.4))],
    "cow": [
        ("line", "snow", (0.72, 0.14, 0.66, 0.0, 0.05)),
        ("line", "snow", (0.9, 0.14, 0.96, 0.0, 0.05)),
        ("ellipse", "ink", (0.25, 0.38, 0.42, 0.58)),
        ("ellipse", "ink", (0.5, 0.42, 0.6, 0.6)),
    ],
    "sheep": [
        *[("ellipse", "light", (x, 0.24, x + 0.26, 0.56)) for x in (0.08, 0.26, 0.44)],
        ("ellipse", "ink", (0.72, 0.2, 0.98, 0.48)),
    ],
}

SHAPES: dict[str, list[Primitive]] = {
    "dog": _quadruped(0.68, 0.36, 0.08) + _EARS["dog"],
    "cat": _quadruped(0.74, 0.44, 0.1) + _EARS["cat"],
    "horse": _quadruped(0.6, 0.34, 0.02) + _EARS["horse"],
    "cow": _quadruped(0.7, 0.28, 0.1) + _EARS["cow"],
    "sheep": _quadruped(0.74, 0.3, 0.2) + _EARS["sheep"],
    "duck": [
        ("poly", "main", (0.02, 0.42, 0.3, 0.55, 0.2, 0.8)),
        ("ellipse", "main", (0.08, 0.45, 0.8, 0.95)),
        ("ellipse", "dark", (0.25, 0.55, 0.62, 0.82)),
        ("ellipse", "main", (0.55, 0.08, 0.88, 0.55)),
        ("poly", "orange", (0.84, 0.26, 1.0, 0.34, 0.84, 0.42)),
        ("ellipse", "ink", (0.72, 0.2, 0.78, 0.28)),
    ],
    "man": _person(0.26, skirt=False),
    "woman": _person(0.46, skirt=True),
    "boy": [*_person(0.24, skirt=False), ("pie", "main", (0.25, -0.02, 0.75, 0.24, 180, 360))],
    "girl": [
        ("ellipse", "hair", (0.08, 0.08, 0.34, 0.3)),
        ("ellipse", "hair", (0.66, 0.08, 0.92, 0.3)),
        *_person(0.3, skirt=True),
    ],
    "car": [
        ("poly", "main", (0.2, 0.45, 0.32, 0.1, 0.68, 0.1, 0.84, 0.45)),
        ("poly", "glass", (0.27, 0.44, 0.35, 0.18, 0.49, 0.18, 0.49, 0.44)),
        ("poly", "glass", (0.53, 0.44, 0.53, 0.18, 0.66, 0.18, 0.77, 0.44)),
        ("rrect", "main", (0.02, 0.42, 0.98, 0.85, 0.1)),
        ("rect", "dark", (0.02, 0.68, 0.98, 0.76)),
        ("ellipse", "gold", (0.9, 0.5, 0.98, 0.62)),
        *_wheels(0.24, 0.76),
    ],
    "bus": [
        ("rrect", "main", (0.0, 0.08, 1.0, 0.88, 0.06)),
        *[("rect", "glass", (x, 0.2, x + 0.14, 0.46)) for x in (0.06, 0.23, 0.4, 0.57, 0.77)],
        ("rect", "light", (0.0, 0.56, 1.0, 0.62)),
        *_wheels(0.2, 0.8),
    ],
    "truck": [
        ("rect", "light", (0.0, 0.06, 0.64, 0.78)),
        ("rect", "dark", (0.0, 0.7, 1.0, 0.84)),
        ("rrect", "main", (0.67, 0.28, 1.0, 0.84, 0.05)),
        ("rect", "glass", (0.8, 0.34, 0.97, 0.55)),
        *_wheels(0.16, 0.44, 0.84),
    ],
    "bicycle": [
        ("ring", "ink", (0.0, 0.42, 0.4, 1.0, 0.04)),
        ("ring", "ink", (0.6, 0.42, 1.0, 1.0, 0.04)),
        ("line", "main", (0.2, 0.7, 0.36, 0.28, 0.05)),
        ("line", "main", (0.36, 0.32, 0.74, 0.3, 0.05)),
        ("line", "main", (0.47, 0.72, 0.74, 0.3, 0.05)),
        ("line", "main", (0.2, 0.7, 0.47, 0.72, 0.05)),
        ("line", "main", (0.8, 0.7, 0.7, 0.1, 0.05)),
        ("line", "ink", (0.62, 0.1, 0.82, 0.08, 0.05)),
        ("rrect", "ink", (0.24, 0.2, 0.46, 0.28, 0.03)),
    ],
    "boat": [
        ("line", "wood", (0.5, 0.02, 0.5, 0.72, 0.03)),
        ("poly", "snow", (0.53, 0.04, 0.53, 0.62, 0.92, 0.62)),
        ("poly", "light", (0.47, 0.12, 0.47, 0.62, 0.14, 0.62)),
        ("poly", "main", (0.02, 0.68, 0.98, 0.68, 0.82, 0.98, 0.18, 0.98)),
        ("poly", "dark", (0.12, 0.86, 0.88, 0.86, 0.82, 0.98, 0.18, 0.98)),
    ],
    "plane": [
        ("poly", "main", (0.02, 0.1, 0.14, 0.1, 0.26, 0.5, 0.08, 0.5)),
        ("poly", "dark", (0.42, 0.5, 0.6, 0.5, 0.42, 0.02, 0.32, 0.02)),
        ("rrect", "main", (0.04, 0.38, 1.0, 0.68, 0.14)),
        *[("ellipse", "glass", (x, 0.44, x + 0.05, 0.55)) for x in (0.3, 0.42, 0.54, 0.66, 0.78)],
        ("poly", "dark", (0.4, 0.6, 0.62, 0.6, 0.4, 1.0, 0.28, 1.0)),
    ],
    "kite": [
        ("line", "ink", (0.5, 0.66, 0.2, 1.0, 0.02)),
        ("poly", "main", (0.5, 0.0, 0.92, 0.28, 0.5, 0.68, 0.08, 0.28)),
        ("poly", "light", (0.5, 0.0, 0.92, 0.28, 0.5, 0.28)),
        ("poly", "dark", (0.5, 0.68, 0.08, 0.28, 0.5, 0.28)),
        ("poly", "main", (0.3, 0.78, 0.46, 0.82, 0.34, 0.9)),
    ],
    "balloon": [
        ("ellipse", "main", (0.04, 0.0, 0.96, 0.72)),
        ("ellipse", "light", (0.34, 0.0, 0.66, 0.72)),
        ("line", "ink", (0.3, 0.66, 0.4, 0.84, 0.02)),
        ("line", "ink", (0.7, 0.66, 0.6, 0.84, 0.02)),
        ("rrect", "wood", (0.36, 0.82, 0.64, 1.0, 0.04)),
    ],
    "bird": [
        ("poly", "dark", (0.3, 0.5, 0.42, 0.0, 0.62, 0.46)),
        ("ellipse", "main", (0.15, 0.36, 0.8, 0.78)),
        ("poly", "main", (0.0, 0.38, 0.25, 0.5, 0.2, 0.66)),
        ("ellipse", "main", (0.66, 0.22, 0.92, 0.58)),
        ("poly", "gold", (0.9, 0.34, 1.0, 0.42, 0.88, 0.48)),
        ("ellipse", "ink", (0.8, 0.32, 0.85, 0.4)),
    ],
    "house": [
        ("rect", "main", (0.1, 0.42, 0.9, 1.0)),
        ("poly", "roof", (0.0, 0.44, 0.5, 0.02, 1.0, 0.44)),
        ("rect", "wood", (0.42, 0.66, 0.58, 1.0)),
        ("rect", "glass", (0.18, 0.54, 0.34, 0.74)),
        ("rect", "glass", (0.66, 0.54, 0.82, 0.74)),
    ],
    "tent": [
        ("poly", "main", (0.0, 1.0, 0.5, 0.0, 1.0, 1.0)),
        ("poly", "dark", (0.5, 0.0, 1.0, 1.0, 0.7, 1.0)),
        ("poly", "ink", (0.32, 1.0, 0.5, 0.42, 0.62, 1.0)),
    ],
    "tower": [
        ("poly", "main", (0.2, 0.2, 0.8, 0.2, 0.95, 1.0, 0.05, 1.0)),
        ("rect", "dark", (0.14, 0.42, 0.86, 0.5)),
        ("rect", "dark", (0.1, 0.7, 0.9, 0.78)),
        ("rect", "gold", (0.3, 0.1, 0.7, 0.22)),
        ("poly", "roof", (0.16, 0.12, 0.5, 0.0, 0.84, 0.12)),
    ],
    "tree": [
        ("rect", "wood", (0.43, 0.55, 0.57, 1.0)),
        ("ellipse", "dark", (0.05, 0.22, 0.6, 0.68)),
        ("ellipse", "main", (0.4, 0.2, 0.97, 0.66)),
        ("ellipse", "main", (0.2, 0.0, 0.78, 0.5)),
        ("ellipse", "light", (0.3, 0.06, 0.56, 0.26)),
    ],
    "flower": [
        ("line", "leaf", (0.5, 0.4, 0.5, 1.0, 0.07)),
        ("ellipse", "leaf", (0.5, 0.64, 0.86, 0.78)),
        *[
            ("ellipse", "main", (x, y, x + 0.36, y + 0.22))
            for x, y in ((0.32, 0.0), (0.02, 0.12), (0.62, 0.12), (0.12, 0.3), (0.52, 0.3))
        ],
        ("ellipse", "gold", (0.34, 0.16, 0.66, 0.37)),
    ],
    "umbrella": [
        ("line", "wood", (0.5, 0.1, 0.5, 1.0, 0.05)),
        ("pie", "main", (0.0, 0.02, 1.0, 0.9, 180, 360)),
        ("pie", "light", (0.3, 0.02, 0.7, 0.9, 180, 360)),
    ],
    "ball": [
        ("ellipse", "main", (0.0, 0.0, 1.0, 1.0)),
        ("pie", "light", (0.0, 0.0, 1.0, 1.0, 200, 260)),
        ("pie", "dark", (0.0, 0.0, 1.0, 1.0, 20, 80)),
        ("ellipse", "snow", (0.38, 0.38, 0.62, 0.62)),
    ],
    "box": [
        ("rect", "main", (0.0, 0.2, 1.0, 1.0)),
        ("poly", "light", (0.0, 0.2, 0.12, 0.0, 0.88, 0.0, 1.0, 0.2)),
        ("rect", "dark", (0.42, 0.2, 0.58, 1.0)),
    ],
    "bench": [
        ("rect", "main", (0.0, 0.02, 1.0, 0.16)),
        ("rect", "main", (0.0, 0.22, 1.0, 0.36)),
        ("rect", "dark", (0.0, 0.5, 1.0, 0.64)),
        ("rect", "ink", (0.08, 0.36, 0.15, 1.0)),
        ("rect", "ink", (0.85, 0.36, 0.92, 1.0)),
    ],
    "table": [
        ("poly", "main", (0.08, 0.0, 0.92, 0.0, 1.0, 0.22, 0.0, 0.22)),
        ("rect", "dark", (0.0, 0.22, 1.0, 0.32)),
        ("rect", "dark", (0.05, 0.3, 0.13, 1.0)),
        ("rect", "dark", (0.87, 0.3, 0.95, 1.0)),
    ],
    "chair": [
        ("rrect", "main", (0.05, 0.0, 0.3, 0.6, 0.08)),
        ("rect", "light", (0.05, 0.52, 0.95, 0.66)),
        ("rect", "dark", (0.08, 0.64, 0.2, 1.0)),
        ("rect", "dark", (0.78, 0.64, 0.9, 1.0)),
    ],
    "sofa": [
        ("rrect", "dark", (0.06, 0.0, 0.94, 0.7, 0.1)),
        ("rrect", "main", (0.14, 0.42, 0.86, 0.86, 0.06)),
        ("rrect", "main", (0.0, 0.28, 0.18, 0.9, 0.08)),
        ("rrect", "main", (0.82, 0.28, 1.0, 0.9, 0.08)),
        ("rect", "ink", (0.06, 0.9, 0.12, 1.0)),
        ("rect", "ink", (0.88, 0.9, 0.94, 1.0)),
    ],
    "bed": [
        ("rect", "wood", (0.0, 0.05, 0.06, 1.0)),
        ("rect", "wood", (0.94, 0.4, 1.0, 1.0)),
        ("rect", "snow", (0.05, 0.5, 0.95, 0.7)),
        ("rrect", "snow", (0.08, 0.32, 0.34, 0.56, 0.06)),
        ("rrect", "main", (0.32, 0.42, 0.96, 0.86, 0.06)),
    ],
    "lamp": [
        ("rect", "metal", (0.46, 0.3, 0.54, 0.94)),
        ("poly", "main", (0.28, 0.0, 0.72, 0.0, 0.98, 0.38, 0.02, 0.38)),
        ("ellipse", "metal", (0.2, 0.9, 0.8, 1.0)),
    ],
    "clock": [
        ("ellipse", "ink", (0.0, 0.0, 1.0, 1.0)),
        ("ellipse", "main", (0.07, 0.07, 0.93, 0.93)),
        ("line", "contrast", (0.5, 0.5, 0.5, 0.16, 0.06)),
        ("line", "contrast", (0.5, 0.5, 0.74, 0.6, 0.06)),
    ],
    "cup": [
        ("ring", "main", (0.6, 0.25, 1.0, 0.75, 0.09)),
        ("poly", "main", (0.0, 0.08, 0.76, 0.08, 0.66, 1.0, 0.1, 1.0)),
        ("ellipse", "dark", (0.0, 0.0, 0.76, 0.18)),
    ],
    "bottle": [
        ("rect", "main", (0.34, 0.04, 0.66, 0.4)),
        ("rrect", "main", (0.06, 0.34, 0.94, 1.0, 0.2)),
        ("rect", "light", (0.06, 0.56, 0.94, 0.82)),
        ("rect", "ink", (0.32, 0.0, 0.68, 0.07)),
    ],
    "book": [
        ("poly", "main", (0.0, 0.25, 0.86, 0.25, 1.0, 0.0, 0.16, 0.0)),
        ("rect", "snow", (0.03, 0.3, 0.86, 0.86)),
        ("rect", "dark", (0.0, 0.84, 0.86, 1.0)),
        ("poly", "dark", (0.86, 0.25, 1.0, 0.0, 1.0, 0.72, 0.86, 1.0)),
    ],
    "apple": [
        ("line", "wood", (0.5, 0.3, 0.58, 0.02, 0.08)),
        ("ellipse", "leaf", (0.54, 0.04, 0.86, 0.2)),
        ("ellipse", "main", (0.02, 0.2, 0.62, 1.0)),
        ("ellipse", "main", (0.38, 0.2, 0.98, 1.0)),
        ("ellipse", "light", (0.18, 0.34, 0.34, 0.54)),
    ],
    "cake": [
        ("rrect", "main", (0.02, 0.36, 0.98, 1.0, 0.06)),
        ("rect", "light", (0.02, 0.6, 0.98, 0.7)),
        ("ellipse", "snow", (0.02, 0.26, 0.98, 0.5)),
        ("line", "gold", (0.5, 0.06, 0.5, 0.36, 0.06)),
        ("ellipse", "red", (0.2, 0.24, 0.34, 0.4)),
        ("ellipse", "red", (0.68, 0.24, 0.82, 0.4)),
    ],
    "vase": [
        ("line", "leaf", (0.5, 0.4, 0.3, 0.08, 0.05)),
        ("line", "leaf", (0.5, 0.4, 0.72, 0.06, 0.05)),
        ("ellipse", "gold", (0.16, 0.0, 0.42, 0.14)),
        ("ellipse", "gold", (0.6, 0.0, 0.86, 0.14)),
        ("rect", "main", (0.34, 0.36, 0.66, 0.56)),
        ("ellipse", "main", (0.06, 0.46, 0.94, 1.0)),
        ("ellipse", "light", (0.2, 0.56, 0.4, 0.78)),
    ],
    "hat": [
        ("pie", "main", (0.2, 0.0, 0.8, 1.7, 180, 360)),
        ("rect", "dark", (0.19, 0.62, 0.81, 0.78)),
        ("ellipse", "main", (0.0, 0.72, 1.0, 1.0)),
    ],
}

# Top and bottom of the sky, then of the ground.
_SKY_COLOURS: dict[str, tuple[Colour, Colour]] = {
    "sunny": ((92, 176, 240), (196, 230, 250)),
    "cloudy": ((150, 168, 186), (208, 216, 222)),
    "rainy": ((98, 112, 130), (160, 170, 182)),
    "snowy": ((176, 190, 208), (226, 232, 240)),
    "sunset": ((94, 72, 140), (250, 166, 104)),
    "night": ((14, 20, 52), (48, 60, 112)),
}
_GROUND_COLOURS: dict[str, tuple[Colour, Colour]] = {
    "beach": ((238, 214, 160), (222, 190, 130)),
    "forest": ((92, 128, 66), (62, 96, 48)),
    "street": ((132, 134, 140), (92, 94, 100)),
    "meadow": ((140, 196, 84), (92, 156, 62)),
    "mountains": ((196, 208, 216), (150, 166, 178)),
    "desert": ((226, 176, 104), (204, 146, 80)),
    "lake": ((120, 170, 90), (86, 136, 70)),
    "farm": ((184, 172, 92), (146, 128, 66)),
    "park": ((118, 184, 98), (84, 146, 74)),
    "harbour": ((168, 160, 150), (128, 120, 112)),
    "kitchen": ((206, 208, 206), (176, 178, 178)),
    "living room": ((176, 128, 84), (146, 102, 64)),
    "bedroom": ((196, 176, 190), (164, 144, 160)),
    "classroom": ((190, 160, 112), (160, 130, 88)),
}
_WALL_COLOURS: dict[str, tuple[Colour, Colour]] = {
    "kitchen": ((228, 240, 236), (204, 224, 220)),
    "living room": ((244, 226, 196), (230, 206, 172)),
    "bedroom": ((218, 214, 240), (198, 194, 226)),
    "classroom": ((234, 238, 206), (214, 220, 182)),
}
_WATER: dict[str, Colour] = {
    "beach": (58, 140, 190),
    "lake": (72, 132, 176),
    "harbour": (54, 104, 140),
}
_HORIZON = 0.5


@dataclass(frozen=True)
class Finish:
    """What a camera adds: a cast over the colours, contrast, darkness at the rim, softness."""

    cast: tuple[float, float, float] = (1.0, 1.0, 1.0)
    contrast: float = 1.0
    vignette: float = 0.0
    blur_px: float = 0.0


def _mix(a: Colour, b: Colour, share: float) -> Colour:
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


def _palette(colour: str) -> dict[str, Colour]:
    main = COLOUR_VALUES[colour]
    own = {
        "main": main,
        "dark": _mix(main, (0, 0, 0), 0.28),
        "light": _mix(main, (255, 255, 255), 0.45),
        "roof": _mix(main, (70, 40, 40), 0.65),
        "contrast": (20, 20, 24) if sum(main) > 330 else (245, 245, 245),
    }
    return COLOUR_VALUES | _FIXED | own


class _Canvas:
    """A supersampled picture, `aspect` times as wide as high; coordinates are fractions of it."""

    def __init__(self, aspect: float = 1.0, image: Image.Image | None = None) -> None:
        self.height = PICTURE_PX * _SUPERSAMPLE
        self.width = round(PICTURE_PX * aspect) * _SUPERSAMPLE
        self.image = image.copy() if image else Image.new("RGB", (self.width, self.height))
        self.draw = ImageDraw.Draw(self.image)

    def gradient(self, top: float, bottom: float, colours: tuple[Colour, Colour]) -> None:
        first, last = round(top * self.height), round(bottom * self.height)
        for y in range(first, last):
            share = (y - first) / max(last - first - 1, 1)
            self.draw.line([(0, y), (self.width, y)], fill=_mix(*colours, share))

    def primitive(self, name: str, colour: Colour, points: list[float], extra: list[float]) -> None:
        """Draws one shape: points are fractions of the picture, other lengths of its width."""
        sides = itertools.cycle((self.width, self.height))
        xy = [point * side for point, side in zip(points, sides, strict=False)]
        if name == "poly":
            self.draw.polygon(xy, fill=colour)
        elif name == "line":
            width = max(round(extra[0] * self.width), 2)
            self.draw.line(xy, fill=colour, width=width)
        elif name == "pie":
            self.draw.pieslice(xy, extra[0], extra[1], fill=colour)
        elif name == "ring":
            self.draw.ellipse(xy, outline=colour, width=max(round(extra[0] * self.width), 2))
        elif name == "rrect":
            self.draw.rounded_rectangle(xy, radius=extra[0] * self.width, fill=colour)
        elif name == "rect":
            self.draw.rectangle(xy, fill=colour)
        else:
            self.draw.ellipse(xy, fill=colour)

    def thing(self, kind: str, colour: str, box: tuple[float, float, float, float]) -> None:
        """Draws the table of the kind into the box (left, top, right, bottom)."""
        left, top, right, bottom = box
        width, height = right - left, bottom - top
        palette = _palette(colour)
        for name, role, numbers in SHAPES[kind]:
            count = len(numbers) if name == "poly" else 4
            points = [
                left + value * width if place % 2 == 0 else top + value * height
                for place, value in enumerate(numbers[:count])
            ]
            extra = list(numbers[count:])
            if name != "pie":
                extra = [value * width for value in extra]
            self.primitive(name, palette[role], points, extra)


Box = tuple[float, float, float, float]


def draw_scene(
    scene: Scene, rng: random.Random, finish: Finish | None = None, aspect: float = 1.0
) -> Image.Image:
    """RGB picture, 256 px high and `aspect` times as wide.

    `rng` decides small shifts of place, `finish` the look. A wide picture shows things as large as
    a square one does, further apart: of twice the width, those at the sides stand outside of its
    middle square.
    """
    canvas = _Canvas(aspect)
    boxes = _prepare(canvas, scene, rng)
    order = sorted(range(len(boxes)), key=lambda i: (scene.things[i].near, boxes[i][3], i))
    for index in order:
        thing = scene.things[index]
        if not thing.in_sky and thing.on is None:
            _draw_shadow(canvas, boxes[index])
        canvas.thing(thing.kind, thing.colour, boxes[index])
    size = (canvas.width // _SUPERSAMPLE, canvas.height // _SUPERSAMPLE)
    image = canvas.image.resize(size, Image.Resampling.LANCZOS)
    image = _draw_weather(image, scene.sky, rng)
    return _finished(image, finish) if finish else image


class Backdrop:
    """A place and its sky, drawn once, before which things come and go."""

    def __init__(self, place: str, sky: str, rng: random.Random) -> None:
        self._empty, self._sky = Scene(place, sky, ()), sky
        self._canvas = _Canvas()
        _prepare(self._canvas, self._empty, rng)
        # What falls does not fall: it looks alike in every picture.
        self._weather = rng.getrandbits(32)

    def box(self, thing: Thing, rng: random.Random) -> Box:
        """Where a thing stands."""
        (box,) = _layout(replace(self._empty, things=(thing,)), rng, 1.0)
        return box

    def picture(self, thing: Thing, box: Box) -> Image.Image:
        """RGB picture, 256 px, of a thing in its box."""
        canvas = _Canvas(image=self._canvas.image)
        if not thing.in_sky:
            _draw_shadow(canvas, box)
        canvas.thing(thing.kind, thing.colour, box)
        image = canvas.image.resize((PICTURE_PX, PICTURE_PX), Image.Resampling.BOX)
        return _draw_weather(image, self._sky, random.Random(self._weather))


def thing_boxes(scene: Scene, rng: random.Random, aspect: float = 1.0) -> list[Box]:
    """Where `draw_scene` with an equal `rng` draws each thing, in parts of the picture's sides."""
    return _prepare(_Canvas(aspect), scene, rng)


def _prepare(canvas: "_Canvas", scene: Scene, rng: random.Random) -> list[Box]:
    """Draws what lies behind the things, and decides where they stand."""
    if scene.place in INDOOR_PLACES:
        _draw_room(canvas, scene.place)
    else:
        _draw_landscape(canvas, scene, rng)
    return _layout(scene, rng, canvas.width / canvas.height)


def _layout(scene: Scene, rng: random.Random, aspect: float) -> list[Box]:
    boxes: list[Box] = []
    for thing in scene.things:
        kind = KINDS[thing.kind]
        scale = {"small": 0.75, "medium": 1.0, "big": 1.3}[thing.size]
        if thing.on is not None:
            left, top, right, _ = boxes[thing.on]
            centre = (left + right) / 2 + rng.uniform(-0.04, 0.04)
            bottom = top + 0.035
            scale *= 0.8
        else:
            centre = 0.18 + 0.32 * SIDES.index(thing.side) + rng.uniform(-0.03, 0.03)
            bottom = _bottom(scene, thing, kind.height * scale, rng)
            scale *= 1.2 if thing.near else 0.95
        width, height = kind.width * scale / aspect, kind.height * scale
        centre = min(max(centre, width / 2 + 0.01), 0.99 - width / 2)
        boxes.append((centre - width / 2, bottom - height, centre + width / 2, bottom))
    return boxes


def _bottom(scene: Scene, thing: Thing, height: float, rng: random.Random) -> float:
    if thing.in_sky:
        return rng.uniform(0.06, 0.12) + height
    if KINDS[thing.kind].group == "water":
        return _HORIZON + 0.1 + rng.uniform(0.0, 0.02)
    return rng.uniform(0.9, 0.95) if thing.near else rng.uniform(0.69, 0.73)


def _draw_shadow(canvas: _Canvas, box: tuple[float, float, float, float]) -> None:
    left, _, right, bottom = box
    y = min(int(bottom * canvas.height), canvas.height - 1)
    ground = canvas.image.getpixel((canvas.width // 2, y))
    assert isinstance(ground, tuple)
    shade = _mix((ground[0], ground[1], ground[2]), (0, 0, 0), 0.25)
    canvas.primitive("ellipse", shade, [left, bottom - 0.015, right, bottom + 0.015], [])


def _draw_landscape(canvas: _Canvas, scene: Scene, rng: random.Random) -> None:
    canvas.gradient(0.0, _HORIZON, _SKY_COLOURS[scene.sky])
    _draw_sky(canvas, scene.sky, rng)
    ground = _GROUND_COLOURS[scene.place]
    if scene.sky == "snowy":
        ground = (_mix(ground[0], (255, 255, 255), 0.65), _mix(ground[1], (255, 255, 255), 0.5))
    if scene.sky == "night":
        ground = (_mix(ground[0], (10, 14, 40), 0.5), _mix(ground[1], (10, 14, 40), 0.5))
    _draw_backdrop(canvas, scene, ground[0], rng)
    canvas.gradient(_HORIZON, 1.0, ground)
    if scene.place in _WATER:
        water = _WATER[scene.place]
        canvas.gradient(_HORIZON, _HORIZON + 0.12, (water, _mix(water, (255, 255, 255), 0.25)))
    if scene.place == "street":
        for x in (0.05, 0.3, 0.55, 0.8):
            canvas.primitive("rect", (236, 232, 214), [x, 0.8, x + 0.14, 0.815], [])
    if scene.place == "farm":
        for y in (0.56, 0.62):
            canvas.primitive("rect", (150, 106, 66), [0.0, y, 1.0, y + 0.015], [])
        for x in (0.04, 0.24, 0.44, 0.64, 0.84):
            canvas.primitive("rect", (150, 106, 66), [x, 0.52, x + 0.02, 0.66], [])


def _draw_sky(canvas: _Canvas, sky: str, rng: random.Random) -> None:
    shift = rng.uniform(-0.08, 0.08)
    if sky == "sunny":
        canvas.primitive("ellipse", (255, 236, 120), [0.78 + shift, 0.05, 0.9 + shift, 0.17], [])
    if sky == "sunset":
        canvas.primitive("ellipse", (255, 196, 90), [0.4 + shift, 0.4, 0.62 + shift, 0.62], [])
    if sky == "night":
        canvas.primitive("ellipse", (244, 240, 210), [0.1 + shift, 0.06, 0.2 + shift, 0.16], [])
        for _ in range(22):
            x, y = rng.uniform(0, 1), rng.uniform(0, _HORIZON)
            canvas.primitive("ellipse", (240, 240, 220), [x, y, x + 0.008, y + 0.008], [])
    if sky in {"cloudy", "rainy", "snowy"}:
        tone = {"cloudy": (240, 242, 244), "rainy": (120, 128, 142), "snowy": (206, 214, 226)}[sky]
        for x in (0.12, 0.48, 0.8):
            x += rng.uniform(-0.08, 0.08)
            for dx, dy, r in ((-0.07, 0.02, 0.05), (0.0, 0.0, 0.075), (0.08, 0.02, 0.055)):
                box = [x + dx - r, 0.12 + dy - r * 0.7, x + dx + r, 0.12 + dy + r * 0.7]
                canvas.primitive("ellipse", tone, box, [])


def _draw_backdrop(canvas: _Canvas, scene: Scene, ground: Colour, rng: random.Random) -> None:
    """What stands at the horizon and tells the place."""
    haze = _SKY_COLOURS[scene.sky][1]
    shift = rng.uniform(-0.06, 0.06)
    if scene.place in _BACKDROPS:
        _BACKDROPS[scene.place](canvas, shift, haze, ground)


def _draw_peaks(canvas: _Canvas, shift: float, haze: Colour, ground: Colour) -> None:
    rock, cap = _mix((96, 104, 122), haze, 0.2), (250, 250, 252)
    for x, peak in ((0.15, 0.2), (0.5, 0.12), (0.85, 0.22)):
        x += shift
        canvas.primitive("poly", rock, [x - 0.34, _HORIZON, x, peak, x + 0.34, _HORIZON], [])
        snow = [x - 0.1, peak + 0.1, x, peak, x + 0.1, peak + 0.1, x, peak + 0.07]
        canvas.primitive("poly", cap, snow, [])


def _draw_firs(canvas: _Canvas, shift: float, haze: Colour, ground: Colour) -> None:
    for step in range(9):
        x = step * 0.12 + shift
        tone = _mix((30, 82, 46), haze, 0.15 + 0.12 * (step % 2))
        top = 0.2 + 0.06 * (step % 3)
        canvas.primitive("poly", tone, [x - 0.1, _HORIZON, x, top, x + 0.1, _HORIZON], [])


def _draw_town(canvas: _Canvas, shift: float, haze: Colour, ground: Colour) -> None:
    for step, top in enumerate((0.26, 0.16, 0.32, 0.2, 0.28, 0.14)):
        tone = _mix((104, 96, 110), haze, 0.2 + 0.12 * (step % 2))
        left = step * 0.17 + shift
        canvas.primitive("rect", tone, [left, top, left + 0.15, _HORIZON], [])
        for y in (top + 0.04, top + 0.1):
            canvas.primitive("rect", (248, 226, 150), [left + 0.05, y, left + 0.1, y + 0.03], [])


def _draw_dunes(canvas: _Canvas, shift: float, haze: Colour, ground: Colour) -> None:
    dune = _mix(ground, (160, 100, 40), 0.25)
    for x in (0.2, 0.75):
        box = [x + shift - 0.45, 0.38, x + shift + 0.45, 0.66]
        canvas.primitive("ellipse", dune, box, [])


def _draw_barn(canvas: _Canvas, shift: float, haze: Colour, ground: Colour) -> None:
    barn, x = _mix((160, 52, 44), haze, 0.15), 0.7 + shift
    canvas.primitive("rect", barn, [x, 0.36, x + 0.24, _HORIZON], [])
    canvas.primitive("poly", (96, 60, 52), [x - 0.02, 0.37, x + 0.12, 0.26, x + 0.26, 0.37], [])


def _draw_hills(canvas: _Canvas, shift: float, haze: Colour, ground: Colour) -> None:
    tone = _mix(ground, haze, 0.35)
    for x in (0.1, 0.6, 1.0):
        box = [x + shift - 0.4, 0.4, x + shift + 0.4, 0.64]
        canvas.primitive("ellipse", tone, box, [])


def _draw_quay(canvas: _Canvas, shift: float, haze: Colour, ground: Colour) -> None:
    for x in (0.1, 0.34, 0.86):
        canvas.primitive("rect", _mix((120, 90, 70), haze, 0.3), [x, 0.3, x + 0.02, 0.52], [])
    canvas.primitive("rect", _mix((90, 80, 90), haze, 0.35), [0.5, 0.42, 0.8, 0.5], [])


_BACKDROPS = {
    "mountains": _draw_peaks,
    "forest": _draw_firs,
    "street": _draw_town,
    "desert": _draw_dunes,
    "farm": _draw_barn,
    "meadow": _draw_hills,
    "park": _draw_hills,
    "lake": _draw_hills,
    "harbour": _draw_quay,
}


def _draw_room(canvas: _Canvas, place: str) -> None:
    canvas.gradient(0.0, 0.6, _WALL_COLOURS[place])
    canvas.gradient(0.6, 1.0, _GROUND_COLOURS[place])
    canvas.primitive("rect", (240, 238, 232), [0.0, 0.585, 1.0, 0.605], [])
    if place == "kitchen":
        for x in (0.05, 0.25, 0.65, 0.85):
            canvas.primitive("rect", (184, 152, 112), [x, 0.02, x + 0.18, 0.16], [])
            canvas.primitive("ellipse", (90, 80, 70), [x + 0.14, 0.1, x + 0.16, 0.12], [])
    elif place == "classroom":
        canvas.primitive("rect", (126, 90, 54), [0.24, 0.06, 0.76, 0.36], [])
        canvas.primitive("rect", (46, 84, 66), [0.26, 0.08, 0.74, 0.34], [])
    else:
        frame, pane = (236, 232, 224), (166, 208, 236)
        left = 0.36 if place == "bedroom" else 0.62
        canvas.primitive("rect", frame, [left, 0.08, left + 0.28, 0.36], [])
        canvas.primitive("rect", pane, [left + 0.02, 0.1, left + 0.13, 0.34], [])
        canvas.primitive("rect", pane, [left + 0.15, 0.1, left + 0.26, 0.34], [])


def _draw_weather(image: Image.Image, sky: str, rng: random.Random) -> Image.Image:
    draw = ImageDraw.Draw(image)
    if sky == "rainy":
        for _ in range(70):
            x, y = rng.uniform(0, image.width), rng.uniform(0, image.height)
            draw.line([(x, y), (x - 3, y + 10)], fill=(190, 204, 222))
    if sky == "snowy":
        for _ in range(70):
            x, y = rng.uniform(0, image.width), rng.uniform(0, image.height)
            draw.ellipse([x, y, x + 3, y + 3], fill=(255, 255, 255))
    return image


def _finished(image: Image.Image, finish: Finish) -> Image.Image:
    if finish.blur_px:
        image = image.filter(ImageFilter.GaussianBlur(finish.blur_px))
    pixels = np.asarray(image, dtype=np.float32)
    pixels = (pixels - 128) * finish.contrast + 128
    pixels = pixels * np.asarray(finish.cast, dtype=np.float32)
    y, x = np.mgrid[-1 : 1 : image.height * 1j, -1 : 1 : image.width * 1j]
    pixels = pixels * (1 - finish.vignette * (x**2 + y**2) / 2)[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def jpeg_bytes(image: Image.Image, quality: int = 82) -> bytes:
    """A JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality, optimize=True)
    return buffer.getvalue()
