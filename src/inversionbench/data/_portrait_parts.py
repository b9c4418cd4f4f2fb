"""Drawing one part of a portrait at a time, for a batch of portraits at once.

Coordinates: `u` to the right and `v` down, in units of the head's half height, origin at the middle of the
head, turned with it; arrays are (n, side, side) float32, everything else broadcasts from (n, 1, 1). A part
computes how much of each pixel it covers, in [0, 1], and blends its colour in. Coverage comes from a signed
distance in pixels, so shapes of any size have edges one pixel wide. Two rules keep thin shapes honest: the
distance to an implicit curve f = 0 is f / |grad f|, and a strip is the difference of two half planes, so that
a strip that closes (an eyelid, a mouth) vanishes instead of leaving a bright line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

Array = np.ndarray


@dataclass
class Canvas:
    """A batch in the making. `image` (n, 3, side, side) in [0, 1]; `pixel` (n, 1, 1): one pixel in head units.

    `person` and `photo` give parameters by name, each (n, 1, 1). `u`, `v`: head coordinates; `x`, `y`: the
    same without the head's roll, for neck and clothes. `light` (n, 3): direction towards the light.
    """

    image: Array
    u: Array
    v: Array
    x: Array
    y: Array
    pixel: Array
    person: dict[str, Array]
    photo: dict[str, Array]
    light: Array
    head: Array  # signed distance to the outline of the head, head units, negative inside
    colours: dict[str, Array]  # each (n, 3)
    face: Array  # coverage by the head: what lies on the face ends where the head does
    kept: dict[Callable[[Canvas], Array], Array] = field(default_factory=dict)

    def once(self, make: Callable[[Canvas], Array]) -> Array:
        """`make(self)`, computed at its first use."""
        if make not in self.kept:
            self.kept[make] = make(self)
        return self.kept[make]

    def paint(self, part: Callable[[Canvas], None], shown: Array) -> None:
        """Draw a part that only some portraits have: `shown` (n, 1, 1) > 0."""
        rows = np.flatnonzero(shown[:, 0, 0])
        if len(rows):
            shared = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "kept"}
            some = replace(self, kept={}, **{name: _take(value, rows) for name, value in shared.items()})
            part(some)
            self.image[rows] = some.image

    def blend(self, cover: Array, colour: Array) -> None:
        """Paint `colour`, (n, 3) or (n, 3, side, side), where `cover` (n, side, side) is positive."""
        if colour.ndim == 2:
            colour = colour[:, :, None, None]
        self.image += cover[:, None] * (colour - self.image)

    def shade(self, amount: Array) -> None:
        """Multiply brightness by 1 - amount (negative: lighten)."""
        self.image *= (1 - amount)[:, None]

    def place(self, u: Array | float, v: Array | float, depth: float = 1.0) -> tuple[Array, Array, Array]:
        """Where a point of the face lands after yaw and pitch, and how much its width shrinks there.

        The face is an ellipsoid of half axes 0.8, 1, 0.9; `depth` > 1 stands out of it (nose, glasses).
        """
        u, v = np.asarray(u, np.float32), np.asarray(v, np.float32)
        z = 0.9 * depth * np.sqrt(np.maximum(1 - (u / 0.8) ** 2 - v**2, 0.05))
        sin, cos = np.sin(self.photo["yaw"]), np.cos(self.photo["yaw"])
        turned = u * cos + z * sin
        forward = z * cos - u * sin
        lifted = v * np.cos(self.photo["pitch"]) + forward * np.sin(self.photo["pitch"])
        width = np.clip(cos - 0.9**2 * u / (0.64 * z) * sin, 0.45, 1.15)
        return turned, lifted, width


def _take(value: Any, rows: Array) -> Any:
    return {k: v[rows] for k, v in value.items()} if isinstance(value, dict) else value[rows]


def rgb(red: float, green: float, blue: float) -> Array:
    """Three numbers as a float32 array (3,)."""
    return np.array([red, green, blue], np.float32)


def edge(distance: Array, pixel: Array) -> Array:
    """Coverage of a pixel whose centre lies at a signed distance (negative inside) from an edge."""
    return np.clip(0.5 - distance / pixel, 0, 1)


def strip(v: Array, top: Array, bottom: Array, pixel: Array) -> Array:
    """Coverage by top < v < bottom; exactly 0 where bottom <= top."""
    covered = np.clip((v - top) / pixel + 0.5, 0, 1) - np.clip((v - bottom) / pixel + 0.5, 0, 1)
    return np.maximum(covered, 0)


def ellipse(x: Array, y: Array, a: Array | float, b: Array | float, pixel: Array) -> Array:
    """Coverage by an ellipse with half axes a, b; one thinner than a pixel is faint, not full."""
    f = (x / a) ** 2 + (y / b) ** 2 - 1
    slope = 2 * np.sqrt((x / a**2) ** 2 + (y / b**2) ** 2) + 1e-6
    thin = np.asarray(np.minimum(a, b), np.float32)
    return edge(f / slope, pixel) * np.minimum(1, 2 * thin / pixel)


def blob(x: Array, y: Array, a: Array | float, b: Array | float) -> Array:
    """A soft spot: 1 in the middle, 0 from the ellipse with half axes a, b outwards."""
    return np.maximum(1 - (x / a) ** 2 - (y / b) ** 2, 0) ** 2


def half_width(person: dict[str, Array]) -> Array:
    """Half the width of the head at eye level, (n, 1, 1)."""
    return 0.74 + 0.1 * person["face_width"]


def head_distance(u: Array, v: Array, person: dict[str, Array]) -> Array:
    """Signed distance to the outline: half an ellipse above, tapering to the chin below (see module)."""
    width = half_width(person)
    length = 1.0 + 0.12 * person["chin"]
    taper = 0.23 - 0.18 * person["jaw"]
    square = 0.28 + 0.25 * person["jaw"]
    t = np.maximum(v, 0) / length
    s = 1 - taper * np.minimum(t, 1.2) ** 2  # far below the chin the taper would turn round
    up = np.minimum(v, 0) / 0.95
    q = (u / (width * s)) ** 2
    f = q + (1 - square) * t * t + square * t**4 + up * up - 1
    fu = 2 * q / np.where(np.abs(u) < 1e-3, 1e-3, u)
    fv = (4 * q * taper * t / s + 2 * (1 - square) * t + 4 * square * t**3) / length + 2 * up / 0.95
    return f / np.sqrt(fu * fu + fv * fv + 1e-4)


def backdrop(c: Canvas) -> None:
    """A calm wall: a gradient between two near colours and two faint soft spots."""
    p = c.photo
    side = c.image.shape[-1]
    g = (np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1
    across, down = g[None, None, :], g[None, :, None]
    mix = 0.5 + 0.35 * (across * np.cos(p["wall_angle"]) + down * np.sin(p["wall_angle"]))
    c.image[:] = c.colours["wall"][:, :, None, None]
    c.blend(np.clip(mix, 0, 1), c.colours["wall_far"])
    for i in "12":
        spot = blob(across - p[f"spot_u{i}"], down - p[f"spot_v{i}"], p[f"spot_size{i}"], p[f"spot_size{i}"])
        c.blend(0.35 * spot, c.colours[f"spot{i}"])


def body(c: Canvas) -> None:
    """Neck with the shadow of the chin, shoulders, and a collar that is round or pointed."""
    p = c.person
    lean = 0.15 * np.sin(c.photo["roll"]) + 0.1 * np.sin(c.photo["yaw"])
    x = c.x + lean * np.clip(1.3 - c.y, 0, 1)
    half = 0.36 + 0.06 * p["face_width"] + 0.05 * p["jaw"] + 0.25 * np.maximum(c.y - 1.05, 0) ** 2
    neck = edge(np.abs(x) - half, c.pixel) * edge(0.3 - c.y, c.pixel)
    shadow = 0.74 + 0.2 * np.clip((c.y - 0.95) / 0.5, 0, 1) - 0.25 * (np.abs(x) / half) ** 2 * 0.6
    c.blend(neck, c.colours["skin"][:, :, None, None] * shadow[:, None])
    shoulder = 1.13 + 0.09 * c.photo["drop"] + 0.2 * np.maximum(np.abs(c.x) - 0.35, 0) ** 1.5
    collar = np.where(c.photo["collar"] > 0, 1.45 - 1.1 * np.abs(c.x), 1.36 - 1.3 * c.x * c.x)
    cover = edge(np.maximum(shoulder, collar) - c.y, c.pixel)
    fold = 1 - 0.18 * np.clip((np.abs(c.x) - 0.5) / 0.9, 0, 1) + 0.08 * (c.x * c.light[:, 0, None, None])
    rim = 0.25 * edge(np.abs(c.y - np.maximum(shoulder, collar)) - 0.05, c.pixel)
    c.blend(cover, c.colours["clothes"][:, :, None, None] * (fold - rim)[:, None])


def lit(c: Canvas, width: float, height: float) -> Array:
    """Brightness of an ellipsoid around the head under the photograph's light, about 0.55 to 1.1."""
    nx, ny = c.u / width, c.v / height
    nz = np.sqrt(np.maximum(1 - nx * nx - ny * ny, 0.02))
    lx, ly, lz = (c.light[:, i, None, None] for i in range(3))
    return 0.52 + 0.56 * np.maximum(nx * lx + ny * ly + nz * lz, 0)


def skin(c: Canvas) -> None:
    """Ears behind the head, then the head, shaded as an ellipsoid, with warm cheeks."""
    p = c.person
    tone = c.colours["skin"][:, :, None, None]
    width = half_width(p) + 0.02
    size = 1 + 0.5 * p["ears"]
    for side in (-1, 1):
        hidden = np.maximum(side * np.sin(c.photo["yaw"]), 0)
        du, dv = c.u - side * width * (1 - 0.35 * hidden), c.v - 0.04 + 0.25 * np.sin(c.photo["pitch"])
        ear = ellipse(du, dv, 0.11 * size, 0.2 * size, c.pixel)
        c.blend(ear, tone * (0.88 - 0.3 * blob(du, dv, 0.08, 0.14))[:, None])
    c.blend(c.face, tone * lit(c, 0.95, 1.2)[:, None])
    for side in (-1, 1):
        cu, cv, w = c.place(side * 0.42, 0.28)
        c.blend(0.16 * blob((c.u - cu) / w, c.v - cv, 0.3, 0.25), tone * rgb(1.05, 0.72, 0.68)[:, None, None])


def eyes(c: Canvas) -> None:
    """Sockets, eyeballs between two lids, iris and pupil, upper lash line."""
    p, q = c.person, c.photo
    half = 0.165 * (1 + 0.28 * p["eye_size"])
    for side in (-1, 1):
        cu, cv, w = c.place(side * (0.32 + 0.06 * p["eye_gap"]), -0.06 + 0.06 * p["eye_height"])
        du, dv = (c.u - cu) / w, c.v - cv
        c.shade(0.2 * blob(du, dv + 0.03, 0.3, 0.2) * c.face)
        x = du / half
        arch = np.maximum(1 - x * x, 0)
        slope = -side * 0.07 * p["eye_slant"] * x
        opening = 0.1 * (1 + 0.4 * p["eye_size"]) * q["eyelid"]
        top, bottom = slope - opening * arch, slope + 0.55 * opening * arch
        ball = strip(dv, top, bottom, c.pixel) * c.face
        c.blend(0.92 * ball, c.colours["eyeball"])
        gu, gv = du - 0.05 * q["gaze_u"], dv + 0.02 - 0.025 * q["gaze_v"]
        iris = ellipse(gu, gv, 0.09, 0.09, c.pixel)
        c.blend(ball * iris, c.colours["iris"])
        c.blend(ball * ellipse(gu, gv, 0.045, 0.045, c.pixel), c.colours["pupil"])
        c.blend(0.8 * ball * blob(gu + 0.03, gv + 0.03, 0.045, 0.045), c.colours["glint"])
        lash = strip(dv, top - 0.03, top + 0.008, c.pixel) * edge(np.abs(du) - half, c.pixel) * c.face
        c.blend(0.75 * lash, c.colours["lash"])


def brows(c: Canvas) -> None:
    """One tapering arch above each eye."""
    p, q = c.person, c.photo
    for side in (-1, 1):
        height = -0.29 + 0.06 * p["eye_height"] - 0.07 * p["brow_height"] - 0.05 * q["brow"]
        cu, cv, w = c.place(side * (0.33 + 0.06 * p["eye_gap"]), height)
        x = (c.u - cu) / (0.22 * w)
        thick = 0.045 * (1 + 0.75 * p["brow_thickness"]) * np.maximum(1 - x * x, 0) ** 0.5
        middle = 0.07 * x * x - 0.05 + side * x * (0.03 - 0.06 * p["brow_slant"]) + 0.02 * q["brow"] * side * x
        arch = strip(c.v - cv, middle - thick, middle + thick, c.pixel)
        c.blend(0.85 * arch * c.face, c.colours["brow"])


def nose(c: Canvas) -> None:
    """A bridge lit from one side, a bright tip, wings and nostrils; the tip moves most when the head turns."""
    p = c.person
    tip = 0.27 + 0.09 * p["nose_length"]
    wing = 0.135 * (1 + 0.4 * p["nose_width"])
    ru, rv, _ = c.place(0.0, -0.1)
    tu, tv, w = c.place(0.0, tip, 1.25)
    t = np.clip((c.v - rv) / (tv - rv), 0, 1.15)
    du = (c.u - ru - (tu - ru) * t) / (w * wing * (0.45 + 0.5 * t))
    along = np.clip(4 * t, 0, 1) * edge(c.v - tv - 0.05, 3 * c.pixel)
    flank = np.maximum(1 - (np.abs(du) - 1.0) ** 2 / 0.7, 0) * np.sign(du)
    c.shade(along * flank * (0.16 * -np.sign(c.light[:, :1, None]) * np.minimum(np.abs(2 * c.light[:, :1, None]), 1)))
    c.shade(along * 0.1 * np.abs(flank))
    du, dv = (c.u - tu) / w, c.v - tv
    c.shade(-0.16 * blob(du, dv + 0.03, 0.5 * wing, 0.12))
    c.shade(0.32 * blob(du, dv - 0.06, 1.25 * wing, 0.075))
    for side in (-1, 1):
        nostril = ellipse(du - side * 0.5 * wing, dv - 0.045, 0.33 * wing, 0.028, c.pixel)
        c.blend(0.6 * nostril, c.colours["shadow"])


def mouth(c: Canvas) -> None:
    """Two lips around a line that bends with the smile; when open, teeth above a dark gap."""
    p, q = c.person, c.photo
    cu, cv, w = c.place(0.0, 0.53 + 0.06 * p["mouth_height"], 1.05)
    half = (0.25 * (1 + 0.32 * p["mouth_width"]) * (1 + 0.12 * q["smile"])) * w
    x, dv = (c.u - cu) / half, c.v - cv
    arch = np.maximum(1 - x * x, 0)
    gap = 0.13 * q["mouth_open"] * arch
    line = 0.035 * q["smile"] - 0.075 * q["smile"] * x * x - 0.4 * gap
    upper = 0.065 * (1 + 0.7 * p["lips"]) * arch * (1 - 0.3 * np.maximum(1 - (4 * x) ** 2, 0))
    lower = 0.085 * (1 + 0.7 * p["lips"]) * arch
    c.shade(0.16 * blob(c.u - cu, dv - 0.17, 0.2, 0.06))
    c.blend(strip(dv, line - upper, line, c.pixel) * c.face, 0.85 * c.colours["lips"])
    c.blend(strip(dv, line + gap, line + gap + lower, c.pixel) * c.face, c.colours["lips"])
    inside = strip(dv, line, line + gap, c.pixel) * c.face
    c.blend(inside, c.colours["gap"])
    c.blend(0.9 * strip(dv, line, line + 0.55 * gap, c.pixel) * c.face, c.colours["teeth"])
    seam = strip(dv, line - 0.012, line + 0.014, c.pixel) * edge(np.abs(x) - 1.05, c.pixel / half)
    c.blend(0.7 * seam * c.face * (1 - inside), c.colours["shadow"])
