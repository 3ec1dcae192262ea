"""Bodies: the shapes of chest, bones, heart, diaphragm and lungs, and the trees of vessels and bronchi in them.

Slice 0 is the apex of the lungs, row 0 the front of the chest, column 0 the patient's right. Lengths are mm.
"""

import numpy as np

Size = tuple[int, int, int]  # depth, height, width


def field(rng: np.random.Generator, size: Size, knots: Size) -> np.ndarray:
    """A smooth random field [depth, height, width] of unit variance, about `knots` bumps along each axis."""
    values = rng.standard_normal([k + 2 for k in knots])
    for n, k in zip(size, knots, strict=True):
        at = np.linspace(0.5, k + 0.5, n)[:, None] - np.arange(k + 2)
        weights = np.exp(-at**2)
        weights /= np.sqrt((weights**2).sum(1, keepdims=True))
        values = np.tensordot(values, weights, (0, 1))
    return values


def _oval(x, y):
    """A radius whose level sets are between an ellipse and a rounded box."""
    x = x * x
    y = y * y
    return 0.6 * np.sqrt(x + y) + 0.4 * np.sqrt(np.sqrt(x * x + y * y))


def anatomy(rng: np.random.Generator, size: Size, table: bool = True) -> tuple:
    """Spacing, HU of all but the lungs, depth under the lung surface (mm), the lung's part of a voxel, and places.

    table: whether the patient lies on one.
    """
    half = rng.uniform(140, 190)
    length = half * rng.uniform(1.15, 1.45)
    aspect = rng.uniform(0.62, 0.78)
    fov = half * rng.uniform(2.15, 2.65)
    spacing = (length * rng.uniform(1.05, 1.25) / size[0], fov / size[1], fov / size[2])
    z, y, x = np.ogrid[tuple(slice(n) for n in size)]
    z = z * spacing[0] - length * rng.uniform(0.0, 0.1)
    y = (y - size[1] / 2) * spacing[1] - fov * rng.uniform(-0.05, 0.05) + 5 * field(rng, size, (3, 3, 3))
    x = (x - size[2] / 2) * spacing[2] - fov * rng.uniform(-0.05, 0.05) + 5 * field(rng, size, (3, 3, 3))
    fat = rng.uniform(8, 24)
    muscle = rng.uniform(12, 20)
    wide = half * (1 - 0.12 * np.exp(-np.maximum(z, 0) / (0.25 * length)))
    skin = (1 - _oval(x / wide, y / (aspect * wide))) * half * aspect
    taper = np.sqrt(1 - (1 - np.clip(z / (0.5 * length), 0.02, 1))**2)
    across = (wide - fat - muscle) * taper
    deep = (aspect * wide - fat - muscle) * taper
    cavity = (1 - _oval(x / across, (y - 10 * (1 - taper)) / deep)) * deep
    depth = np.minimum(cavity, _below(rng, z, y, x, across, deep, length))
    spine = np.sqrt(x**2 + (y - (deep - 14) * (0.9 + 0.1 * taper))**2)
    depth = np.minimum(depth, spine - 25)
    hu = np.where(skin < fat, -100.0, 45.0) + 6 * field(rng, size, (6, 10, 10))
    rib = np.abs((z + rng.uniform(0.35, 0.6) * y) / (length / 8) % 1 - 0.5) < 0.16
    hu[rib & (cavity > -11) & (cavity < -2) & (skin > fat)] = rng.uniform(200, 380)
    hu[(spine < 18) & (z % 26 > 5)] = rng.uniform(130, 240)
    hu[(np.abs(x) < 5) & (y > deep + 8) & (skin > 6)] = 220
    hu[(np.abs(x) < 20) & (y < 0) & (cavity > -13) & (cavity < -2) & (z > 0.15 * length) & (z < 0.75 * length)] = 180
    plate = np.abs(0.5 * (np.abs(x) - 0.6 * half) + 0.85 * (y - 0.55 * half * aspect)) < 4
    hu[plate & (np.abs(np.abs(x) - 0.6 * half) < 32) & (cavity < -13) & (skin > fat) & (z < 0.5 * length)] = 220
    top = rng.uniform(6, 20) + half * aspect
    bed = table & (y > top) & (y < top + 9) & (np.abs(x) < half)
    wind = np.hypot(np.abs(x) - 1.1 * np.maximum(z - 0.33 * length, 0), y + 5)
    hu[(wind < np.where(z < 0.33 * length, 8.5, 6)) & (z < 0.42 * length)] = -990
    hu += np.clip(0.5 - skin / spacing[1], 0, 1) * (np.where(bed, -350.0, -1000.0) - hu)
    aerated = np.clip(depth / spacing[1] + 0.5, 0, 1)
    hilum = np.array([0.42 * length, 0.1 * deep.max(), 0.26 * across.max()])
    return spacing, hu, depth, aerated, (z, y, x, length, deep.max(), across.max(), hilum, cavity)


def _below(rng, z, y, x, across, deep, length):
    """How far a point lies (mm) from mediastinum, heart and diaphragm, on the side of the lungs."""
    middle = np.abs(x - 3) - rng.uniform(9, 14) - rng.uniform(14, 24) * np.exp(-(y / (0.5 * deep))**2)
    at = rng.uniform(0.6, 0.7) * length
    radius = rng.uniform(0.85, 1.15)
    heart = ((x / across - 0.2) / 0.42)**2 + ((y / deep + 0.25) / 0.48)**2 + ((z - at) / (0.3 * length))**2
    heart = (np.sqrt(heart) / radius - 1) * 50
    dome = 1 - ((np.abs(x) / across - 0.45) / 0.6)**2 - ((y / deep + 0.2) / 1.0)**2
    floor = length - rng.uniform(0.14, 0.26) * length * np.maximum(dome, 0) + rng.uniform(6, 16) * (x > 0)
    return np.minimum(np.minimum(middle, heart), 0.8 * (floor - z))


def lung_of(rng: np.random.Generator, size: Size, spacing: tuple[float, float, float], depth: np.ndarray,
            place: tuple) -> dict:
    """What the lungs are made of and where it lies: a dict of vectors [voxels] over the flat indices `where`."""
    z, y, x, length, deep, across, hilum, cavity = place
    where = np.flatnonzero(depth > 0)
    z, y, x = (np.broadcast_to(a, size).ravel()[where] for a in (z, y, x))
    side = np.where(x > 0, 1.0, -1.0)
    pleura = cavity.ravel()[where]
    depth = depth.ravel()[where]
    slow = [field(rng, size, (3, 3, 3)).ravel()[where] for _ in range(4)]
    central = -np.sqrt((z - hilum[0])**2 + (y - hilum[1])**2 + (np.abs(x) - hilum[2])**2) / 50
    axes = np.stack([y / deep * 2, central, (z / length - 0.5) * 3, side])
    mottle = rng.uniform((-1, -0.4, -1, -1), (1, 1.2, 1, 1)) @ axes + slow[0]  # rather near the hila
    mottle += 2.5 * field(rng, size, [5 * n // 8 for n in size]).ravel()[where]
    hazy = rng.uniform(0, 0.5) * np.clip((rng.uniform(-2, 2, 4) @ axes + slow[1]) / 4, 0, 1)
    dependent = 3 * y / deep + rng.uniform(-1, 2) * z / length + rng.normal(0, 0.6) * side + 0.4 * slow[2]
    air = rng.uniform(-880, -760) + rng.uniform(15, 70) * y / deep + rng.uniform(5, 35) * slow[3]
    air = blend(np.clip(air, -970, -650), hazy, rng.uniform(-600, -450))
    hila = np.argmax(np.where(side > 0, central, -np.inf)), np.argmax(np.where(side < 0, central, -np.inf))
    hila = np.stack(np.unravel_index(where[[hila[1], hila[0]]], size), 1)
    lung = {'where': where, 'z': z, 'y': y, 'x': x, 'side': side, 'depth': depth, 'pleura': pleura, 'air': air,
            'mottle': mottle, 'dependent': dependent, 'hila': hila, 'length': length, 'deep': deep, 'spacing': spacing}
    lung['vessel'] = _tree(rng, size, lung, rng.uniform(3.5, 6.5), 26)
    lung['bronchus'] = _tree(rng, size, lung, rng.uniform(2.5, 3.5), 12)
    return lung


def _tree(rng, size, lung, radius, trunks, twigs=4, steps=30):
    """The part of each lung voxel [voxels] in tubes from the hila to the pleura; `radius` is mm at the hilum."""
    scale = np.array(lung['spacing'])
    ends = rng.choice(np.flatnonzero(lung['depth'] < 12), trunks)
    starts = lung['hila'][(lung['side'][ends] > 0).astype(int)] + rng.normal(0, 6, (trunks, 3)) / scale
    ends = np.stack(np.unravel_index(lung['where'][ends], size), 1).astype(float)
    s = np.linspace(0, 1, steps)[:, None, None]
    stems = starts + (ends - starts) * s + rng.normal(0, 10, (trunks, 3)) / scale * np.sin(np.pi * s)
    fork = rng.integers(steps // 8, steps * 3 // 4, (trunks, twigs))
    roots = stems[fork, np.arange(trunks)[:, None]].reshape(-1, 3)
    tips = roots + (np.repeat(ends, twigs, 0) - roots) * 0.8 + rng.normal(0, 22, roots.shape) / scale
    leaves = roots + (tips - roots) * s + rng.normal(0, 5, roots.shape) / scale * np.sin(np.pi * s)
    thick = radius * (1 - 0.85 * s[..., 0]) * np.ones(trunks)
    thin = 0.75 * thick[fork, np.arange(trunks)[:, None]].ravel() * (1 - 0.75 * s[..., 0])
    path = np.concatenate([stems.reshape(-1, 3), leaves.reshape(-1, 3)])
    return _paint(size, path, np.concatenate([thick.ravel(), thin.ravel()]) / scale[1]).flat[lung['where']]


def _paint(size, path, radius):
    """The part of each voxel [depth, height, width] within `radius` [points] pixels of `path` [points, 3]."""
    near = np.rint(path).astype(int)
    part = np.zeros(size)
    reach = np.maximum(radius, 0.6)
    for step in np.subtract(list(np.ndindex(3, 5, 5)), (1, 2, 2)):
        some = np.flatnonzero(reach > np.abs(step).max() - 1)
        at = near[some] + step
        thin = np.minimum(1, (radius[some] / 0.6)**2)
        full = np.clip(reach[some] - np.sqrt(((at - path[some])**2).sum(1)) + 0.5, 0, 1) * thin
        keep = (full > 0) & (at >= 0).all(1) & (at < size).all(1)
        np.maximum.at(part, tuple(at[keep].T), full[keep])
    return part


def blend(base: np.ndarray | float, weight: np.ndarray, target: np.ndarray | float) -> np.ndarray:
    """A part `weight` of a voxel has the HU `target`, the rest keeps its own."""
    return base + weight * (target - base)
