"""The moves of Rubik's cube Pro on one volume [depth, height, width, channels], taken as 2 x 2 x 2 cubes. Key first.

Li et al., "Efficient and Effective Training of COVID-19 Classification Networks With Self-Supervised Dual-Track Learning to Rank" (IEEE
JBHI 2020), section IV.B. Cubes are [8, depth, height, width, channels], x the fastest. `jax.vmap` over keys and volumes makes the batch.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

CUBES = 8
PERMUTATIONS = 100  # of all 40,320 (section IV.B.1)
FIELD = 7  # whose numbers, and infinity, are eight points


class Scrambled(NamedTuple):
    """cubes: float32 [8, depth, height, width, channels]; permutation: int, a row of permutations(); turned: bool [8, 2], of the cube
    in each place whether it is turned about z, and about y."""

    cubes: jax.Array
    permutation: jax.Array
    turned: jax.Array


def scramble(key: jax.Array, volume: jax.Array, gap: tuple[int, int, int], masked: bool) -> Scrambled:
    """The volume in cubes, in another order, some turned, and where `masked` about half of them with about half their voxels 0."""
    k_cut, k_permutation, k_turn, k_mask = jax.random.split(key, 4)
    number = jax.random.randint(k_permutation, (), 0, PERMUTATIONS)
    turned = jax.random.bernoulli(k_turn, shape=(CUBES, 2))
    cubes = turn(turned, permute(number, cut(k_cut, volume, gap)))
    return Scrambled(mask(k_mask, cubes) if masked else cubes, number, turned)


def cut(key: jax.Array, volume: jax.Array, gap: tuple[int, int, int]) -> jax.Array:
    """A cube from anywhere in each of the 2 x 2 x 2 cells of a volume, smaller than its cell by a gap in z, y, x, so that the borders
    of neighbours do not continue each other."""
    cell = np.array(volume.shape[:3]) // 2
    size = (*(cell - gap), volume.shape[3])
    first = cell * np.array(list(itertools.product((0, 1), repeat=3)))
    within = jax.random.randint(key, (CUBES, 3), 0, np.array(gap) + 1)
    return jax.vmap(lambda at: jax.lax.dynamic_slice(volume, (*at, 0), size))(first + within)


def permute(number: jax.Array, cubes: jax.Array) -> jax.Array:
    """In place i the cube that was in place permutations()[number, i]."""
    return cubes[jnp.asarray(permutations())[number]]


def turn(turned: jax.Array, cubes: jax.Array) -> jax.Array:
    """Each cube turned by 180 degrees about z, about y, or both, which is a turn about x; turned: bool [8, 2]."""
    about_z, about_y = (turned[:, i, None, None, None, None] for i in (0, 1))
    cubes = jnp.where(about_z, cubes[:, :, ::-1, ::-1], cubes)
    return jnp.where(about_y, cubes[:, ::-1, :, ::-1], cubes)


def mask(key: jax.Array, cubes: jax.Array) -> jax.Array:
    """Each cube masked or not, of a masked one each voxel 0 or not, all by a fair coin (section IV.B.3)."""
    k_cube, k_voxel = jax.random.split(key)
    masked = jax.random.bernoulli(k_cube, shape=(CUBES, 1, 1, 1, 1))
    kept = jax.random.bernoulli(k_voxel, shape=cubes.shape)
    return jnp.where(masked & ~kept, 0, cubes)


@functools.cache
def permutations() -> np.ndarray:
    """Orders of eight cubes, int32 [100, 8], any two of which differ in at least 6 places, as well as so many can.

    Of the 336 maps x -> (a x + b) / (c x + d) of the numbers modulo 7 and infinity two that agree at three points are one. Sorted, and
    taken at equal distances, so that a place does not tell the order.
    """
    numbers = [n for n in itertools.product(range(FIELD), repeat=4) if (n[0] * n[3] - n[1] * n[2]) % FIELD]
    maps = sorted({tuple(_image(n, x) for x in range(CUBES)) for n in numbers})
    return np.array(maps, np.int32)[np.arange(PERMUTATIONS) * len(maps) // PERMUTATIONS]


def _image(numbers, x):
    a, b, c, d = numbers
    above, below = (a, c) if x == FIELD else (a * x + b, c * x + d)
    return above * pow(below, -1, FIELD) % FIELD if below % FIELD else FIELD
