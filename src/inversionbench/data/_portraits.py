"""Generated portraits: people as vectors of visible parameters, photographs of them under nuisances.

A person is a row of `NAMES`, fixed in all their photographs. Continuous parameters are normal with standard
deviation 0.5 (times `spread`), clipped to [-1, 1]; flags are 0 or 1. A parameter that cannot be seen is 0
(lens size without glasses, hairline of the bald), so the vector is a fair target for attribute recovery.

A photograph adds what is not the person: position, size, roll, yaw, pitch, smile, open mouth, eyelids, brows,
gaze, light (direction, strength, colour), wall, clothes, something in front of the face, focus and sensor
noise. `nuisance` multiplies the spread of all of these except noise, focus and the calm wall.

Rendering is one pass over a batch (`_portrait_parts`, `_portrait_hair`), back to front. Cost and difficulty:
`benchmarks/faces.py`.
"""

from __future__ import annotations

import numpy as np

from inversionbench.data import _portrait_hair as hair
from inversionbench.data import _portrait_parts as parts
from inversionbench.data._portrait_parts import Array, Canvas, rgb

NAMES = (
    "skin", "skin_warmth", "hair_light", "hair_red", "eye_blue", "lip_red",
    "face_width", "jaw", "chin", "ears",
    "hair_length", "hair_volume", "hairline", "fringe", "parting", "curl", "bald",
    "eye_size", "eye_gap", "eye_height", "eye_slant", "brow_thickness", "brow_height", "brow_slant",
    "nose_length", "nose_width", "mouth_width", "mouth_height", "lips",
    "beard", "beard_length", "moustache",
    "glasses", "lens_size", "lens_round", "rim", "frame",
)  # fmt: skip
# A small network trained on 12,000 photographs of 6000 people explains at least 40 % of the variance of each of
# these from one photograph of 32 pixels at nuisance 1.8; of most others, less than 10 %.
CLEAR = (
    "skin", "skin_warmth", "hair_light", "hair_red", "hair_length", "parting", "bald", "beard", "moustache", "glasses",
)  # fmt: skip
FLAGS = ("bald", "beard", "moustache", "glasses")
SHOWN_ONLY_WITH = {
    "beard": ("beard_length",),
    "glasses": ("lens_size", "lens_round", "rim", "frame"),
}
HIDDEN_BY_BALD = ("hair_length", "hair_volume", "hairline", "fringe", "parting", "curl")
UNIFORM = ("skin", "hair_light", "eye_blue", "hair_length")  # spread over their whole range
CHUNK = 65536  # pixels of one plane of the portraits drawn at once: small enough for the processor's cache


def random_people(n: int, rng: np.random.Generator, spread: float = 1.0) -> Array:
    """n people as (n, len(NAMES)) float32. `spread` < 1 makes them more alike (flags keep their shares)."""
    p: dict[str, Array] = {name: np.clip(rng.normal(0, 0.5, n) * spread, -1, 1) for name in NAMES}
    for name in UNIFORM:
        p[name] = rng.uniform(-1, 1, n) * spread
    draws = {name: rng.random(n) for name in FLAGS}
    p["glasses"] = draws["glasses"] < 0.33
    p["bald"] = draws["bald"] < 0.1
    p["beard"] = (draws["beard"] < 0.5) & (p["hair_length"] < 0.35)  # a third of all
    p["moustache"] = np.where(p["beard"], draws["moustache"] < 0.7, draws["moustache"] < 0.06)
    for flag, names in SHOWN_ONLY_WITH.items():
        for name in names:
            p[name] = np.where(p[flag], p[name], 0)
    for name in HIDDEN_BY_BALD:
        p[name] = np.where(p["bald"], 0, p[name])
    return np.stack([p[name] for name in NAMES], 1).astype(np.float32)


def render(
    people: Array, per_person: int, rng: np.random.Generator, resolution: int = 32, nuisance: float = 1.8
) -> Array:
    """Photographs of people (m, len(NAMES)): uint8 (m * per_person, 3, resolution, resolution).

    Those of person i are rows i * per_person to (i + 1) * per_person. `nuisance` 0: passport photographs.
    """
    rows = np.repeat(np.asarray(people, dtype=np.float32), per_person, axis=0)
    photos = _photographs(len(rows), rng, nuisance)
    out = np.empty((len(rows), 3, resolution, resolution), np.uint8)
    step = max(1, CHUNK // resolution**2)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        photo = {name: value[part] for name, value in photos.items()}
        image = _draw(rows[part], photo, resolution)
        out[part] = _expose(image, photo, rng)
    return out


def _photographs(n: int, rng: np.random.Generator, nuisance: float) -> dict[str, Array]:
    """Everything that belongs to the photograph and not to the person, (n, 1, 1) each, colours (n, 3)."""
    def normal(sd: float, low: float = -np.inf, high: float = np.inf) -> Array:
        return np.clip(rng.normal(0, sd, (n, 1, 1)) * nuisance, low, high)

    def uniform(low: float, high: float) -> Array:
        return rng.uniform(low, high, (n, 1, 1))

    q = {
        "shift_u": normal(0.1), "shift_v": normal(0.075), "zoom": np.exp(normal(0.09, -0.5, 0.4)),
        "roll": normal(0.1), "yaw": normal(0.2, -0.6, 0.6), "pitch": normal(0.1, -0.4, 0.4),
        "smile": 0.3 + normal(0.5, -1.4, 1.2), "mouth_open": normal(0.35, 0, 1.2), "brow": normal(0.5, -1.5, 1.5),
        "eyelid": np.clip(1 - np.abs(normal(0.2)) + normal(0.05), 0, 1.2),
        "gaze_u": normal(0.5, -1.3, 1.3), "gaze_v": normal(0.4, -1, 1),
        "light_u": normal(0.3, -1.1, 1.1), "light_v": -0.35 + normal(0.2, -0.6, 0.6),
        "gain": np.exp(normal(0.15, -0.7, 0.45)), "warm": normal(0.035, -0.15, 0.15),
        "wall_angle": uniform(0, 2 * np.pi), "drop": normal(0.5, -1, 1.5), "collar": normal(1.0),
        "glare": np.maximum(normal(0.4), 0),
        "thing": rng.random((n, 1, 1)) < 0.2 * nuisance, "thing_round": normal(1.0),
        "thing_u": normal(0.45), "thing_v": 0.2 + normal(0.4), "thing_angle": uniform(-1.5, 1.5),
        "thing_size": uniform(0.12, 0.34), "focus": uniform(0, 0.7),
    }  # fmt: skip
    for i in "12":
        q |= {f"spot_u{i}": uniform(-1, 1), f"spot_v{i}": uniform(-1, 1), f"spot_size{i}": uniform(0.4, 1.0)}
    grey = rng.uniform(0.3, 0.85, (n, 1))
    for name, colourful, bright in (("wall", 0.05, 0.0), ("wall_far", 0.05, 0.12), ("spot1", 0.07, 0.15),
                                    ("spot2", 0.07, 0.15)):  # fmt: skip
        q[name] = np.clip(grey + rng.normal(0, bright, (n, 1)) + rng.normal(0, colourful, (n, 3)), 0.05, 0.95)
    for name in ("clothes", "thing_colour"):
        q[name] = np.clip(rng.uniform(0.1, 0.75, (n, 1)) + rng.normal(0, 0.1, (n, 3)), 0.03, 0.95)
    return {name: value.astype(np.float32) for name, value in q.items()}


def _draw(rows: Array, photo: dict[str, Array], resolution: int) -> Array:
    """The scene in [0, 1] before the camera, (n, 3, resolution, resolution) float32, painted back to front."""
    person = {name: rows[:, i, None, None] for i, name in enumerate(NAMES)}
    grid = (np.arange(resolution, dtype=np.float32) + 0.5) / resolution * 2 - 1
    scale = 0.71 * photo["zoom"]
    x = (grid[None, None, :] - photo["shift_u"]) / scale
    y = (grid[None, :, None] - 0.06 - photo["shift_v"]) / scale
    cos, sin = np.cos(photo["roll"]), np.sin(photo["roll"])
    u, v = x * cos + y * sin, y * cos - x * sin
    shape = (len(rows), resolution, resolution)
    light = np.concatenate([photo["light_u"], photo["light_v"], np.ones_like(scale)], 1)[:, :, 0]
    light /= np.linalg.norm(light, axis=1, keepdims=True)
    pixel = 2 / (resolution * scale)
    head = parts.head_distance(u, v, person)
    c = Canvas(
        image=np.empty((len(rows), 3, resolution, resolution), np.float32), u=u, v=v,
        x=np.broadcast_to(x, shape), y=np.broadcast_to(y, shape), pixel=pixel,
        person=person, photo=photo, light=light, head=head, face=parts.edge(head, pixel),
        colours=_colours(person, photo),
    )  # fmt: skip
    for part in (parts.backdrop, hair.hair_back, parts.body, parts.skin, parts.eyes, parts.nose):
        part(c)
    c.paint(hair.beard, person["beard"] + person["moustache"])
    for part in (parts.mouth, parts.brows, hair.hair_front):
        part(c)
    c.paint(hair.glasses, person["glasses"])
    c.paint(hair.occluder, photo["thing"])
    return c.image


def _expose(image: Array, photo: dict[str, Array], rng: np.random.Generator) -> Array:
    """The camera: focus (a share of a 3x3 binomial blur), gain, colour of the light, noise of sd 0.02."""
    wide = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    rows = (wide[:, :, :-2] + 2 * wide[:, :, 1:-1] + wide[:, :, 2:]) / 4
    soft = (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4
    image = image + photo["focus"][:, None] * (soft - image)
    tint = 1 + photo["warm"][:, :, 0] * rgb(1, 0.1, -1)
    image *= (photo["gain"][:, :, 0] * tint)[:, :, None, None]
    image += 0.02 * rng.standard_normal(image.shape, dtype=np.float32)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def _colours(person: dict[str, Array], photo: dict[str, Array]) -> dict[str, Array]:
    """Colours of all parts, (n, 3) each, from the person's parameters."""
    p = {name: value[:, :, 0] for name, value in person.items()}
    n = len(p["skin"])
    tone = _ramp(p["skin"], (0.34, 0.21, 0.15), (0.58, 0.39, 0.28), (0.79, 0.58, 0.45), (0.90, 0.72, 0.62))
    tone = np.clip(tone + p["skin_warmth"] * rgb(0.035, 0, -0.05), 0.05, 0.98)
    shade = _ramp(
        p["hair_light"], (0.06, 0.05, 0.06), (0.20, 0.13, 0.09), (0.42, 0.27, 0.16), (0.85, 0.70, 0.45)
    )
    red = np.maximum(p["hair_red"], 0) * rgb(0.2, 0.0, -0.06)
    grey = np.maximum(-1.3 * p["hair_red"] - 0.3, 0)
    locks = np.clip(shade + red + grey * (0.35 + 0.5 * shade.mean(1, keepdims=True) - shade), 0.03, 0.95)
    lips = tone + (0.45 + 0.4 * p["lip_red"]) * (rgb(0.72, 0.25, 0.27) - tone) * 0.8
    fixed = {
        "eyeball": (0.90, 0.89, 0.87), "pupil": (0.04, 0.04, 0.05), "glint": (1, 1, 1), "gap": (0.22, 0.05, 0.06),
        "teeth": (0.93, 0.91, 0.87),
    }  # fmt: skip
    return {name: np.tile(np.array(value, np.float32), (n, 1)) for name, value in fixed.items()} | {
        "skin": tone, "hair": locks, "lips": lips, "beard": locks * rgb(0.85, 0.78, 0.75),
        "brow": locks * 0.6, "lash": tone * 0.22, "shadow": tone * 0.38,
        "iris": _ramp(p["eye_blue"], (0.22, 0.12, 0.05), (0.36, 0.27, 0.12), (0.30, 0.42, 0.27), (0.32, 0.5, 0.75)),
        "frame": _ramp(p["frame"], (0.05, 0.05, 0.06), (0.10, 0.08, 0.09), (0.35, 0.16, 0.10), (0.65, 0.6, 0.55)),
        "wall": photo["wall"], "wall_far": photo["wall_far"], "spot1": photo["spot1"], "spot2": photo["spot2"],
        "clothes": photo["clothes"], "thing": photo["thing_colour"],
    }  # fmt: skip


def _ramp(t: Array, *stops: tuple[float, float, float]) -> Array:
    """Piecewise linear colour of t in [-1, 1], (n, 1) -> (n, 3)."""
    at = np.linspace(-1, 1, len(stops))
    return np.concatenate([np.interp(t, at, channel) for channel in zip(*stops)], 1).astype(np.float32)
