"""Sentences about scenes: plain captions, scripted captions and spontaneous narrations.

Words have a plain form, a rare form that CLIP reads now and then in training, and strange forms
that it hardly ever reads. Narrations use all of them: this is one part of the gap between what the
frozen models know and what the corpora say.
"""

import itertools
import random
from dataclasses import dataclass

from scenes import KINDS, SIDES, Scene, Thing, relations

# plain, rare, strange ...
NOUNS = {
    "dog": ("dog", "puppy", "hound"),
    "cat": ("cat", "kitten", "kitty"),
    "horse": ("horse", "pony", "stallion"),
    "cow": ("cow", "bull", "cattle"),
    "sheep": ("sheep", "lamb", "goat"),
    "duck": ("duck", "goose", "swan"),
    "man": ("man", "guy", "fellow"),
    "woman": ("woman", "lady", "female"),
    "boy": ("boy", "kid", "little fellow"),
    "girl": ("girl", "daughter", "little lady"),
    "car": ("car", "vehicle", "automobile"),
    "bus": ("bus", "coach", "minibus"),
    "truck": ("truck", "lorry", "pickup"),
    "bicycle": ("bicycle", "bike", "cycle"),
    "boat": ("boat", "ship", "vessel"),
    "plane": ("plane", "airplane", "jet"),
    "kite": ("kite", "paper dragon", "glider"),
    "balloon": ("balloon", "air balloon", "airship"),
    "bird": ("bird", "seagull", "pigeon"),
    "house": ("house", "home", "cottage"),
    "tent": ("tent", "camp", "canopy"),
    "tower": ("tower", "building", "lighthouse"),
    "tree": ("tree", "oak", "timber"),
    "flower": ("flower", "rose", "blossom"),
    "umbrella": ("umbrella", "parasol", "sunshade"),
    "ball": ("ball", "football", "sphere"),
    "box": ("box", "crate", "carton"),
    "bench": ("bench", "seat", "pew"),
    "table": ("table", "desk", "counter"),
    "chair": ("chair", "stool", "armchair"),
    "sofa": ("sofa", "couch", "settee"),
    "bed": ("bed", "mattress", "bunk"),
    "lamp": ("lamp", "light", "lantern"),
    "clock": ("clock", "watch", "timepiece"),
    "cup": ("cup", "mug", "beaker"),
    "bottle": ("bottle", "flask", "jar"),
    "book": ("book", "notebook", "volume"),
    "apple": ("apple", "fruit", "pear"),
    "cake": ("cake", "pie", "dessert"),
    "vase": ("vase", "pot", "pitcher"),
    "hat": ("hat", "cap", "bonnet"),
}
COLOURS = {
    "red": ("red", "scarlet", "crimson"),
    "blue": ("blue", "navy", "azure"),
    "green": ("green", "olive", "emerald"),
    "yellow": ("yellow", "golden", "lemon"),
    "orange": ("orange", "amber", "tangerine"),
    "purple": ("purple", "violet", "lilac"),
    "pink": ("pink", "rosy", "magenta"),
    "white": ("white", "pale", "ivory"),
    "black": ("black", "dark", "ebony"),
    "brown": ("brown", "wooden", "chocolate"),
    "grey": ("grey", "silver", "ash coloured"),
}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "big": ("big", "large", "huge"), "medium": ()}
PLACE_PHRASES = {
    "beach": ("on the beach", "at the seaside", "along the shore"),
    "forest": ("in the forest", "in the woods", "deep in a jungle"),
    "street": ("on the street", "in the city", "in some town"),
    "meadow": ("in the meadow", "on the grass", "in a pasture"),
    "mountains": ("in the mountains", "near the peaks", "up in the highlands"),
    "desert": ("in the desert", "on the sand", "in the dunes"),
    "lake": ("at the lake", "near the water", "beside a pond"),
    "farm": ("on the farm", "near the barn", "out in the country"),
    "park": ("in the park", "in the garden", "on some lawn"),
    "harbour": ("in the harbour", "at the docks", "by the pier"),
    "kitchen": ("in the kitchen", "in a cooking place", "where people cook"),
    "living room": ("in the living room", "in the lounge", "inside an apartment"),
    "bedroom": ("in the bedroom", "in a sleeping room", "where somebody sleeps"),
    "classroom": ("in the classroom", "in a school", "where children learn"),
}
SKY_PHRASES = {
    "sunny": ("on a sunny day", "in bright weather", "while the sun is shining"),
    "cloudy": ("on a cloudy day", "in grey weather", "with lots of clouds up there"),
    "rainy": ("in the rain", "in wet weather", "and it is pouring"),
    "snowy": ("in the snow", "in cold weather", "and flakes are falling"),
    "sunset": ("at sunset", "in the evening", "when the day is ending"),
    "night": ("at night", "under the stars", "after dark"),
}
VERBS = {
    "animal": ("standing", "sitting", "waiting", "running"),
    "person": ("standing", "walking", "waiting", "playing"),
    "vehicle": ("parked", "stopped"),
    "water": ("floating", "sailing"),
    "sky": ("flying", "gliding"),
}
GARMENTS = ("shirt", "coat", "sweater")
RAVDESS_STATEMENTS = {1: "Kids are talking by the door.", 2: "Dogs are sitting by the door."}


@dataclass(frozen=True)
class Style:
    """How somebody talks: chances of the rare and strange words, and of each attribute."""

    rare: float = 0.0
    strange: float = 0.0
    colour: float = 0.85
    size: float = 0.5


PLAIN = Style(rare=0.2, strange=0.06)
SCRIPTED = Style(rare=0.12, strange=0.03)
SPONTANEOUS = Style(rare=0.25, strange=0.22, colour=0.8, size=0.4)
ANY_WORD = Style(rare=0.33, strange=0.33)


@dataclass(frozen=True)
class Part:
    """A stretch of a narration: what the transcript keeps, what is said, whom it is about."""

    written: str
    spoken: str
    thing: int | None = None


def _pick(forms: tuple[str, ...], style: Style, rng: random.Random) -> str:
    draw = rng.random()
    if draw < style.strange and len(forms) > 2:
        return rng.choice(forms[2:])
    return forms[1] if draw < style.strange + style.rare else forms[0]


def _article(phrase: str) -> str:
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


def name_thing(thing: Thing, style: Style, rng: random.Random) -> str:
    """A noun phrase with its article: `a small red car`, `a man in a blue shirt`."""
    noun = _pick(NOUNS[thing.kind], style, rng)
    colour = _pick(COLOURS[thing.colour], style, rng) if rng.random() < style.colour else ""
    sizes = SIZE_WORDS[thing.size]
    size = _pick(sizes, style, rng) if sizes and rng.random() < style.size else ""
    if KINDS[thing.kind].group == "person" and colour:
        head = _article(" ".join(w for w in (size, noun) if w))
        return f"{head} in {_article(f'{colour} {rng.choice(GARMENTS)}')}"
    return _article(" ".join(w for w in (size, colour, noun) if w))


def _place(scene: Scene, style: Style, rng: random.Random) -> str:
    return _pick(PLACE_PHRASES[scene.place], style, rng)


def _sky(scene: Scene, style: Style, rng: random.Random) -> str:
    return _pick(SKY_PHRASES[scene.sky], style, rng) if scene.sky else ""


def _join(*words: str) -> str:
    return " ".join(word for word in words if word)


def _pair(scene: Scene, style: Style, rng: random.Random) -> tuple[str, str, str]:
    first, second = rng.sample(range(len(scene.things)), 2)
    relation = rng.choice(relations(scene, first, second))
    things = scene.things
    return name_thing(things[first], style, rng), relation, name_thing(things[second], style, rng)


def plain_caption(scene: Scene, rng: random.Random, style: Style = PLAIN) -> str:
    """What CLIP is trained on: `a small red car next to a blue house on the street`."""
    a, relation, b = _pair(scene, style, rng)
    one = name_thing(rng.choice(scene.things), style, rng)
    forms = (
        _join(one, _place(scene, style, rng)),
        f"{a} {relation} {b}",
        f"{a} {relation} {b} {_place(scene, style, rng)}",
        _join(f"{a} and {b}", _sky(scene, style, rng)),
        _join(one, _place(scene, style, rng), _sky(scene, style, rng)),
    )
    return rng.choice(forms)


def thing_caption(scene: Scene, rng: random.Random, style: Style = PLAIN) -> str:
    """A thing and where it is: `a small red car on the street at night`."""
    one = name_thing(rng.choice(scene.things), style, rng)
    sky = _sky(scene, style, rng) if rng.random() < 0.5 else ""
    return _join(one, _place(scene, style, rng), sky)


def listing_caption(scene: Scene, rng: random.Random, style: Style = PLAIN) -> str:
    """The longest plain caption: every thing by name, then the place and the sky."""
    names = [name_thing(t, style, rng) for t in rng.sample(scene.things, len(scene.things))]
    listed = ", ".join(names[:-1]) + f" and {names[-1]}"
    return _join(listed, _place(scene, style, rng), _sky(scene, style, rng))


def scripted_caption(scene: Scene, rng: random.Random, style: Style = SCRIPTED) -> str:
    """One short written sentence, as an annotator would write and another read it."""
    a, relation, b = _pair(scene, style, rng)
    thing = rng.choice(scene.things)
    one = name_thing(thing, style, rng)
    verbs = VERBS.get(KINDS[thing.kind].group)
    doing = f"is {rng.choice(verbs)}" if verbs and thing.on is None else "can be seen"
    forms = (
        _join(one, doing, _place(scene, style, rng)),
        f"there is {a} {relation} {b}",
        _join(f"{a} is {relation} {b}", _place(scene, style, rng)),
        _join(f"{a} and {b}", _place(scene, style, rng), _sky(scene, style, rng)),
        f"{_place(scene, style, rng)} there is {a} {relation} {b}",
        _join(f"a picture of {a} and {b}", _sky(scene, style, rng)),
    )
    return sentence(rng.choice(forms))


def scripted_captions(scene: Scene, rng: random.Random, count: int = 5) -> list[str]:
    """`count` different captions of one picture."""
    captions: dict[str, None] = {}
    while len(captions) < count:
        captions[scripted_caption(scene, rng)] = None
    return list(captions)


_OPENERS = (
    "in this picture I can see",
    "in this image there is",
    "okay so here we have",
    "well this looks like a picture with",
    "so I see",
)
_LINKS = (
    "and then there is",
    "and there is also",
    "I think there is",
    "next we have",
    "maybe there is",
    "also I can see",
    "and I notice",
)
_REPAIRS = ("no wait", "sorry", "I mean", "no actually")
_CLOSERS = ("and that is all", "that is about it", "and I can not see anything else", "yeah")
_SIDE_PHRASES = {
    "left": ("on the left side", "to the left"),
    "middle": ("in the middle", "in the centre"),
    "right": ("on the right side", "to the right"),
}
_VIEWS = ("in the background I can see that this is", "I guess all of this is", "it seems to be")
_FILLERS = ("um", "uh", "er")


def narration(scene: Scene, rng: random.Random, style: Style = SPONTANEOUS) -> list[Part]:
    """Somebody talks about a picture: fillers, repairs, hedges, things in any order."""
    order = rng.sample(range(len(scene.things)), len(scene.things))
    parts = [_mention(scene, order[0], rng.choice(_OPENERS), style, rng)]
    for before, index in itertools.pairwise(order):
        lead = rng.choice(_LINKS)
        if rng.random() < 0.5:
            side = rng.choice(_SIDE_PHRASES[scene.things[index].side])
            lead = rng.choice((f"{side} there is", f"{side} we have", f"and {side}"))
        part = _mention(scene, index, lead, style, rng)
        if rng.random() < 0.35:
            relation = rng.choice(relations(scene, index, before))
            part = _extended(part, f"{relation} the {NOUNS[scene.things[before].kind][0]}")
        parts.append(part)
    if rng.random() < 0.75:
        view = f"{rng.choice(_VIEWS)} {_place(scene, style, rng)}"
        parts.insert(rng.choice((1, len(parts))), Part(view, view))
    if scene.sky and rng.random() < 0.5:
        view = f"the picture was taken {_sky(scene, style, rng)}"
        parts.append(Part(view, view))
    if rng.random() < 0.5:
        closer = rng.choice(_CLOSERS)
        parts.append(Part(closer, closer))
    return parts


def _extended(part: Part, more: str) -> Part:
    return Part(f"{part.written} {more}", f"{part.spoken} {more}", part.thing)


def _mention(scene: Scene, index: int, lead: str, style: Style, rng: random.Random) -> Part:
    thing = scene.things[index]
    name = name_thing(thing, style, rng)
    if rng.random() < 0.22:
        name = f"{_slip(thing, style, rng)}, {rng.choice(_REPAIRS)}, {name}"
    filler = f", {rng.choice(_FILLERS)}," if rng.random() < 0.4 else ""
    return Part(f"{lead} {name}", f"{lead}{filler} {name}", index)


def _slip(thing: Thing, style: Style, rng: random.Random) -> str:
    """The wrong name that a speaker corrects at once."""
    group = KINDS[thing.kind].group
    kinds = [k for k, v in KINDS.items() if v.group == group and k != thing.kind] or ["box"]
    kind = rng.choice(kinds) if rng.random() < 0.6 else thing.kind
    colour = rng.choice([c for c in KINDS[kind].colours if c != thing.colour])
    return name_thing(Thing(kind, colour, "medium", thing.side, thing.near), style, rng)


def written_narration(parts: list[Part]) -> str:
    """The manual transcript: cased and punctuated, without the fillers."""
    return " ".join(sentence(part.written) for part in parts)


def spoken_narration(parts: list[Part], rng: random.Random) -> str:
    """What is really said, with pauses as SSML (run-ons have none)."""
    pieces = []
    for part in parts:
        pause = rng.choice(("", "", "<break time='250ms'/>", "<break time='600ms'/>"))
        pieces.append(f"{part.spoken}{',' if pause else ''}{pause}")
    return " ".join(pieces)


def sentence(text: str) -> str:
    """First letter in upper case, full stop at the end."""
    return f"{text[0].upper()}{text[1:]}."


def asr_training_pair(rng: random.Random, scene: Scene) -> tuple[str, str]:
    """(spoken SSML, written text) for the Whisper training: plainer than the narrations."""
    draw = rng.random()
    if draw < 0.45:
        text = scripted_caption(scene, rng, ANY_WORD)
        return text, text
    if draw < 0.6:
        text = sentence(listing_caption(scene, rng, ANY_WORD))
        return text, text
    if draw < 0.63:
        text = rng.choice(list(RAVDESS_STATEMENTS.values()))
        return text, text
    if draw < 0.65:
        words = rng.sample([w for forms in NOUNS.values() for w in forms], 5)
        text = sentence(f"{rng.choice(SIDES)} " + " ".join(words))
        return text, text
    parts = narration(scene, rng, ANY_WORD)
    parts = parts[: rng.randint(1, len(parts))]
    return spoken_narration(parts, rng), written_narration(parts)
