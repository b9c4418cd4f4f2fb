"""Hair, beard, glasses and the thing in front: the parts of a portrait that lie over the face.

Conventions as in `_portrait_parts`. A person without hair (or beard, glasses) has cover 0 everywhere.
"""

from __future__ import annotations

import numpy as np

from inversionbench.data._portrait_parts import Array, Canvas, blob, edge, ellipse, half_width, lit, strip


def outline(c: Canvas) -> Array:
    """Signed distance to the outer edge of the hair: a dome over the head, falling straight at the sides."""
    p = c.person
    curl = 0.035 * np.maximum(p["curl"], 0) * np.sin(11 * np.arctan2(c.u, -c.v - 0.1) + 7 * p["parting"])
    width = half_width(p) + 0.05 + 0.07 * (1 + p["hair_volume"]) + 0.06 * long(c)
    top = 1.02 + 0.09 * (1 + p["hair_volume"])
    u = c.u + 0.12 * np.sin(c.photo["yaw"])
    up = np.minimum(c.v + 0.05, 0) / top
    q = (u / width) ** 2
    slope = 2 * np.sqrt(q / width**2 + (up / top) ** 2) + 1e-2
    return (q + up * up - 1) / slope - curl


def long(c: Canvas) -> Array:
    """How far hair hangs below the ears: 0 for short hair, 1 at most."""
    return np.maximum(c.person["hair_length"], 0)


def hair_end(c: Canvas) -> Array:
    """Lower end of the hair (n, 1, 1): at the ears when short, on the shoulders when long."""
    length = c.person["hair_length"]
    return 0.12 + 0.25 * np.minimum(length, 0) + 1.5 * np.maximum(length, 0)


def strands(c: Canvas) -> Array:
    """Brightness of hair: ellipsoid shading, a sheen, and streaks that fan out from the parting."""
    p = c.person
    fan = (c.u - 0.4 * p["parting"]) / (0.5 + np.maximum(c.v + 1.25, 0.1))
    streak = np.sin(31 * fan + 5 * p["curl"]) + 0.6 * np.sin(17 * fan + 9 * p["hair_volume"])
    height = c.v + 0.78 + 0.25 * c.u * c.u
    sheen = np.maximum(1 - (height / 0.2) ** 2, 0) * np.maximum(1 - (c.u - 0.5 * c.light[:, :1, None]) ** 2, 0)
    return (1.05 * lit(c, 1.1, 1.35) + 0.2 * sheen) * (1 + 0.09 * streak)


def hair_back(c: Canvas) -> None:
    """Hair behind the head and neck, darker than in front."""
    end = hair_end(c) + 0.05 * np.sin(9 * c.u)
    cover = edge(c.once(outline), c.pixel) * edge(c.v - end, c.pixel) * (1 - c.person["bald"])
    c.blend(cover, c.colours["hair"][:, :, None, None] * (0.72 * c.once(strands))[:, None])


def hair_front(c: Canvas) -> None:
    """Hair over the forehead and temples down to the hairline; a fringe or a parting shape its edge."""
    p = c.person
    shift = 0.5 * np.sin(c.photo["yaw"])
    tilt = 0.45 * np.sin(c.photo["pitch"])
    t = (c.u - shift) / (half_width(p) + 0.02)
    fringe = np.maximum(p["fringe"], 0)
    part = t - 0.6 * p["parting"]
    curve = (0.5 - 0.35 * fringe) * part * part * (1 - 0.2 * p["parting"] * np.sign(part))
    front = -0.66 + 0.13 * p["hairline"] + 0.34 * fringe
    lock = (0.55 + 1.1 * long(c)) * np.maximum(np.abs(t) - 0.8, 0) / 0.2
    curl = 0.03 * np.maximum(p["curl"], 0) * np.sin(14 * c.u + 7 * p["parting"])
    line = np.minimum(front + curve + lock + curl + tilt, hair_end(c))
    cover = edge(c.once(outline), c.pixel) * edge(c.v - line, c.pixel) * (1 - p["bald"])
    shadow = 0.22 * edge(np.abs(c.v - line) - 0.07, 3 * c.pixel) * c.face
    c.shade(shadow * (1 - p["bald"]))
    c.blend(cover, c.colours["hair"][:, :, None, None] * c.once(strands)[:, None])


def beard(c: Canvas) -> None:
    """Cheeks and chin below a line from the ears to under the mouth, and a moustache."""
    p = c.person
    cu, cv, w = c.place(0.0, 0.62, 1.05)
    t = (c.u - 0.6 * cu) / 0.62
    line = cv + 0.06 - 0.75 * np.minimum(t * t, 1.2) + 0.16 * np.maximum(1 - 6 * t * t, 0)
    grown = 0.02 + 0.15 * np.maximum(p["beard_length"] + 0.6, 0) * np.clip(c.v - 0.3, 0, 1)
    cover = edge(c.head - grown, c.pixel) * edge(line - c.v, 3 * c.pixel)
    bristle = 1 + 0.07 * np.sin(23 * c.u + 6 * c.v) * np.sin(19 * c.v)
    tone = c.colours["beard"][:, :, None, None] * (lit(c, 1.0, 1.3) * bristle)[:, None]
    c.blend(p["beard"] * (0.88 * cover), tone)
    du, dv = (c.u - cu) / w, c.v - cv + 0.185
    x = du / 0.26
    droop = 0.1 * x * x
    lip = strip(dv, droop - 0.05 * np.maximum(1 - x * x, 0), droop + 0.045 * np.maximum(1 - x * x, 0), c.pixel)
    c.blend(p["moustache"] * (0.85 * lip * c.face), tone)


def glasses(c: Canvas) -> None:
    """Two rims between circle and rounded rectangle, a bridge, side pieces, a faint glare on the lenses."""
    p = c.person
    size = 0.235 * (1 + 0.14 * p["lens_size"])
    thin = 0.026 + 0.016 * np.maximum(p["rim"], -0.5)
    square = 0.5 - 0.5 * p["lens_round"]
    for side in (-1, 1):
        cu, cv, w = c.place(side * (0.33 + 0.045 * p["eye_gap"]), -0.03 + 0.05 * p["eye_height"], 1.08)
        x, y = (c.u - cu) / (size * w), (c.v - cv) / (size * (0.92 - 0.2 * square))
        a, b = x * x, y * y
        f = (1 - square) * (a + b) + square * (a * a + b * b) - 1
        slope = np.sqrt(
            (2 * x * (1 - square + 2 * square * a)) ** 2 + (2 * y * (1 - square + 2 * square * b)) ** 2
        )
        d = f / (slope + 1e-2) * size
        c.blend(0.1 * edge(d, c.pixel), c.colours["glint"])
        c.blend(0.45 * c.photo["glare"] * blob(x + 0.35, y + 0.4, 0.5, 0.45), c.colours["glint"])
        c.blend(0.92 * rim(d, thin, c.pixel), c.colours["frame"])
        outer = edge(-side * (c.u - cu) + size * w * 0.97, c.pixel) * edge(side * c.u - 0.82, c.pixel)
        arm = strip(c.v - cv, -0.1 - thin, -0.1 + thin, c.pixel) * outer * c.face
        c.blend(0.85 * arm, c.colours["frame"])
    bu, bv, w = c.place(0.0, -0.06 + 0.05 * p["eye_height"], 1.12)
    inner = edge(np.abs(c.u - bu) - (0.35 + 0.045 * p["eye_gap"] - size) * w, c.pixel)
    c.blend(0.9 * inner * strip(c.v - bv, -thin, thin, c.pixel), c.colours["frame"])


def rim(distance: Array, half: Array, pixel: Array) -> Array:
    """Coverage by a line of half thickness `half` along distance 0."""
    return strip(distance, -half, half, pixel)


def occluder(c: Canvas) -> None:
    """Something between camera and face in some photographs: a soft-cornered, tilted, muted thing."""
    q = c.photo
    du, dv = c.x - q["thing_u"], c.y - q["thing_v"]
    cos, sin = np.cos(q["thing_angle"]), np.sin(q["thing_angle"])
    x, y = du * cos + dv * sin, dv * cos - du * sin
    boxy = np.abs(np.maximum(np.abs(x) - 0.7 * q["thing_size"], 0)) ** 2
    boxy = np.sqrt(boxy + np.maximum(np.abs(y) - 0.4 * q["thing_size"], 0) ** 2) - 0.3 * q["thing_size"]
    soft = c.pixel + 0.06  # out of focus
    flat = edge(boxy, soft)
    oval = ellipse(x, y, q["thing_size"], 0.75 * q["thing_size"], soft)
    cover = np.where(q["thing_round"] > 0, oval, flat)
    c.blend(cover, c.colours["thing"][:, :, None, None] * (0.95 - 0.2 * y / (q["thing_size"]))[:, None])
