"""What a scene of the miniature world holds: a place, a sky and two to four things.

A scene is only data. `drawing.py` makes a picture of it and `language.py` sentences.
"""

import random
from dataclasses import dataclass

SKIES = ("sunny", "cloudy", "rainy", "snowy", "sunset", "night")
SIDES = ("left", "middle", "right")
SIZES = ("small", "medium", "big")

OUTDOOR_PLACES = (
    "beach",
    "forest",
    "street",
    "meadow",
    "mountains",
    "desert",
    "lake",
    "farm",
    "park",
    "harbour",
)
INDOOR_PLACES = ("kitchen", "living room", "bedroom", "classroom")
PLACES = OUTDOOR_PLACES + INDOOR_PLACES

_BRIGHT = ("red", "blue", "green", "yellow", "orange", "purple", "pink", "white", "black")
_FUR = ("black", "white", "brown", "grey")


@dataclass(frozen=True)
class Kind:
    """One kind of thing: where it may stand and which colours it comes in."""

    group: str  # animal, person, vehicle, sky, water, plant, building, furniture, small
    colours: tuple[str, ...]
    width: float  # of the picture, at medium size in the middle distance
    height: float


KINDS = {
    "dog": Kind("animal", _FUR, 0.20, 0.17),
    "cat": Kind("animal", (*_FUR, "orange"), 0.17, 0.16),
    "horse": Kind("animal", _FUR, 0.27, 0.27),
    "cow": Kind("animal", ("black", "white", "brown"), 0.27, 0.22),
    "sheep": Kind("animal", ("white", "black", "grey"), 0.21, 0.17),
    "duck": Kind("animal", ("yellow", "white", "brown"), 0.16, 0.15),
    "man": Kind("person", _BRIGHT, 0.13, 0.33),
    "woman": Kind("person", _BRIGHT, 0.14, 0.32),
    "boy": Kind("person", _BRIGHT, 0.11, 0.24),
    "girl": Kind("person", _BRIGHT, 0.12, 0.24),
    "car": Kind("vehicle", _BRIGHT, 0.30, 0.16),
    "bus": Kind("vehicle", _BRIGHT, 0.36, 0.23),
    "truck": Kind("vehicle", _BRIGHT, 0.33, 0.21),
    "bicycle": Kind("vehicle", _BRIGHT, 0.24, 0.17),
    "boat": Kind("water", _BRIGHT, 0.27, 0.26),
    "plane": Kind("sky", ("white", "red", "blue", "yellow", "grey"), 0.26, 0.13),
    "kite": Kind("sky", _BRIGHT[:7], 0.15, 0.22),
    "balloon": Kind("sky", _BRIGHT[:7], 0.15, 0.22),
    "bird": Kind("sky", ("black", "white", "red", "blue", "yellow"), 0.15, 0.11),
    "house": Kind("building", _BRIGHT, 0.30, 0.30),
    "tent": Kind("building", _BRIGHT[:7], 0.27, 0.20),
    "tower": Kind("building", ("white", "grey", "red", "brown"), 0.13, 0.42),
    "tree": Kind("plant", ("green", "yellow", "orange", "white"), 0.24, 0.36),
    "flower": Kind("plant", ("red", "blue", "yellow", "pink", "purple", "white"), 0.12, 0.20),
    "umbrella": Kind("small", _BRIGHT, 0.22, 0.24),
    "ball": Kind("small", _BRIGHT[:7], 0.12, 0.12),
    "box": Kind("small", ("brown", "red", "blue", "green", "yellow"), 0.16, 0.14),
    "bench": Kind("furniture", ("brown", "green", "red", "white", "blue"), 0.27, 0.15),
    "table": Kind("furniture", ("brown", "white", "black", "blue", "green"), 0.34, 0.19),
    "chair": Kind("furniture", _BRIGHT, 0.15, 0.24),
    "sofa": Kind("furniture", _BRIGHT, 0.37, 0.19),
    "bed": Kind("furniture", _BRIGHT, 0.38, 0.19),
    "lamp": Kind("small", _BRIGHT[:7], 0.13, 0.28),
    "clock": Kind("small", ("white", "red", "blue", "green", "black"), 0.13, 0.13),
    "cup": Kind("small", _BRIGHT, 0.11, 0.11),
    "bottle": Kind("small", ("green", "blue", "red", "brown", "purple"), 0.07, 0.20),
    "book": Kind("small", _BRIGHT[:7], 0.16, 0.09),
    "apple": Kind("small", ("red", "green", "yellow"), 0.11, 0.12),
    "cake": Kind("small", ("pink", "white", "brown", "yellow"), 0.17, 0.15),
    "vase": Kind("small", ("blue", "white", "red", "green", "purple"), 0.11, 0.20),
    "hat": Kind("small", _BRIGHT, 0.15, 0.10),
}

_SKY_KINDS = ("plane", "kite", "balloon", "bird")
_PEOPLE = ("man", "woman", "boy", "girl")
_ROAD = ("car", "bus", "truck", "bicycle")
_NATURE = ("dog", "horse", "tree", "flower", "tent", "ball", "umbrella", *_PEOPLE, *_SKY_KINDS)
_ROOM = ("cat", "dog", "table", "chair", "lamp", "clock", "cup", "book", "vase", "box", *_PEOPLE)

PLACE_KINDS = {
    "beach": (*_NATURE, "boat", "hat", "chair"),
    "forest": (*_NATURE, "bicycle", "house", "bench", "cat"),
    "street": (*_ROAD, "house", "tower", "tree", "bench", "dog", "cat", *_PEOPLE, *_SKY_KINDS),
    "meadow": (*_NATURE, "cow", "sheep", "house", "duck"),
    "mountains": (*_NATURE, "house", "car", "sheep", "tower"),
    "desert": (*_NATURE, "car", "truck", "tower", "hat"),
    "lake": (*_NATURE, "boat", "duck", "house", "bench"),
    "farm": (*_NATURE, "cow", "sheep", "duck", "truck", "house", "cat"),
    "park": (*_NATURE, "bench", "bicycle", "cat", "duck"),
    "harbour": ("boat", "tower", "house", "truck", "car", "box", "dog", *_PEOPLE, *_SKY_KINDS),
    "kitchen": (*_ROOM, "bottle", "apple", "cake"),
    "living room": (*_ROOM, "sofa", "ball", "bottle", "hat"),
    "bedroom": (*_ROOM, "bed", "ball", "hat"),
    "classroom": (*_ROOM, "apple", "ball", "bottle"),
}

SUPPORTS = ("table", "box", "bench", "sofa", "bed")
_ON_TOP = ("cat", "book", "cup", "bottle", "apple", "cake", "vase", "hat", "ball", "clock")


@dataclass(frozen=True)
class Thing:
    """One thing of a scene; `on` is the index of the thing that it stands on."""

    kind: str
    colour: str
    size: str
    side: str
    near: bool
    on: int | None = None

    @property
    def in_sky(self) -> bool:
        return KINDS[self.kind].group == "sky"


@dataclass(frozen=True)
class Scene:
    """A place, a sky (empty indoors) and things, the supported one after its support."""

    place: str
    sky: str
    things: tuple[Thing, ...]


def sample_scene(rng: random.Random) -> Scene:
    """Draws one scene; no kind comes twice in it, so that names are unambiguous."""
    place = rng.choice(PLACES)
    sky = rng.choice(SKIES) if place in OUTDOOR_PLACES else ""
    sides = rng.sample(SIDES, k=rng.choice((2, 2, 3, 3, 3)))
    things: list[Thing] = []
    for side in sides:
        kind = _fresh_kind(PLACE_KINDS[place], things, rng)
        things.append(_sample_thing(kind, side, rng))
        small = [k for k in _ON_TOP if k not in {t.kind for t in things}]
        if kind in SUPPORTS and rng.random() < 0.75 and len(things) < 4:
            top = Thing(rng.choice(small), "", "medium", side, things[-1].near, len(things) - 1)
            things.append(_coloured(top, rng))
    return Scene(place, sky, tuple(things[:4]))


def _fresh_kind(kinds: tuple[str, ...], things: list[Thing], rng: random.Random) -> str:
    taken = {thing.kind for thing in things}
    return rng.choice([kind for kind in kinds if kind not in taken])


def _sample_thing(kind: str, side: str, rng: random.Random) -> Thing:
    size = rng.choice(SIZES)
    near = rng.random() < 0.5 and KINDS[kind].group not in {"sky", "water"}
    return _coloured(Thing(kind, "", size, side, near), rng)


def _coloured(thing: Thing, rng: random.Random) -> Thing:
    colour = rng.choice(KINDS[thing.kind].colours)
    return Thing(thing.kind, colour, thing.size, thing.side, thing.near, thing.on)


def relations(scene: Scene, first: int, second: int) -> list[str]:
    """What may truly be said of `first` with regard to `second`."""
    a, b = scene.things[first], scene.things[second]
    if a.on == second:
        return ["on"]
    if b.on == first:
        return ["under"]
    found = ["next to"] if abs(SIDES.index(a.side) - SIDES.index(b.side)) == 1 else []
    if a.in_sky != b.in_sky:
        return ["above" if a.in_sky else "below"]
    if a.near != b.near:
        found.append("in front of" if a.near else "behind")
    if a.side != b.side:
        left = SIDES.index(a.side) < SIDES.index(b.side)
        found.append("to the left of" if left else "to the right of")
    return found or ["with"]
