"""Laws of views by name: how one scan [depth, height, width, channels], float32 in [0, 1], becomes one view of it.

A law is a pure function (key, volume, depth) -> [depth, height, width, channels], in [0, 1] too. A single image is a
volume of one slice. `jax.vmap` over keys and volumes makes the batch.

What a law sees is the plane that the network is to have, to which the scan is squashed; some cut it out of the scan
instead. A volume that is larger than its scan comes with an extent, the height and width of the scan at its top left.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp

from covid_jax import UserError
from covid_jax.augment.distort import hounsfield, poisson_noise, shuffle_pixels
from covid_jax.augment.image import crop, flip, mirror, rotate
from covid_jax.augment.intensity import blur, brighten, jitter
from covid_jax.augment.paint import in_paint, out_paint
from covid_jax.augment.volume import random_contrast_brightness, random_depth_crop, random_resized_crop, squash

View = Callable[..., jax.Array]  # (key, volume, extent=None) -> view
Op = Callable[[jax.Array, jax.Array], jax.Array]  # (key, volume) -> volume

FAMILIES = {  # of the transformations of CMT-CNN, in the order in which a view has them
    'perspective': {'rotation': rotate, 'flip': flip},
    'distortion': {'hounsfield': hounsfield, 'shuffle': shuffle_pixels, 'poisson': poisson_noise},
    'painting': {'inpaint': in_paint, 'outpaint': out_paint},
}
OPS: dict[str, Op] = {name: op for family in FAMILIES.values() for name, op in family.items()}


def train_view(name: str, depth: int = 0, ops: Sequence[str] = (), plane: int = 0) -> View:
    """(key, volume, extent=None) -> a view of training by the law called `name`, of `depth` slices; 0: of all that the volume
    has.

    ops: of cmt, names of OPS. plane: height and width of the view; 0: those of the volume, which then has no extent. Neither
    must exceed the volume's. UserError for an unknown name, and for ops of another law.
    """
    law, _ = _laws(name, ops, plane)
    return lambda key, volume, extent=None: law(key, volume, depth or volume.shape[0], extent)


def test_view(name: str, ops: Sequence[str] = (), plane: int = 0) -> View:
    """(key, volume, extent=None) -> a view of test-time augmentation by the law called `name`, at full depth.

    ops, plane: as in train_view. UserError for an unknown name, and for ops of another law.
    """
    _, law = _laws(name, ops, plane)
    return lambda key, volume, extent=None: law(key, volume, volume.shape[0], extent)


def whole(volume: jax.Array, plane: int = 0, extent: jax.Array | None = None) -> jax.Array:
    """The scan by no law, as it is seen in evaluation: squashed to plane x plane; 0: as it is, and then without an extent."""
    if extent is None and (not plane or volume.shape[1:3] == (plane, plane)):
        return volume
    return squash(volume, plane, extent)


def cmc(key: jax.Array, volume: jax.Array, depth: int) -> jax.Array:
    """Crop of neighbouring slices, crop of the plane, contrast and brightness. CMC-COV19D section 3.2."""
    k_depth, k_crop, k_intensity = jax.random.split(key, 3)
    volume = random_depth_crop(k_depth, volume, depth)
    volume = random_resized_crop(k_crop, volume)
    return random_contrast_brightness(k_intensity, volume)


def cmt(key: jax.Array, volume: jax.Array, depth: int, ops: Sequence[str] = ()) -> jax.Array:
    """Neighbouring slices, then transformations of the plane. CMT-CNN section 3.2.1.

    ops: each of these, in this order (Fig 4: one, or a pair). (): one of each family that takes part, uniformly, in the order
    perspective, distortion, painting; which families do is one of the seven choices of at least one, uniformly. The paper
    does not say how they are drawn. UserError where a plane that is not square may be turned.
    """
    k_depth, k_taken, k_ops = jax.random.split(key, 3)
    volume = random_depth_crop(k_depth, volume, depth)
    names = ops or tuple(OPS)
    taken = jnp.ones(len(ops), bool) if ops else _one_of_each_family(k_taken)
    branches = [partial(_same_type, OPS[name]) for name in names]

    # One operation a step, the same for all rows: vmap would compute every branch of a draw, and XLA, which fuses what is no
    # loop, compute the earlier operations again for each that follows.
    def step(volume, op):
        number, k_op, is_taken = op
        return jnp.where(is_taken, jax.lax.switch(number, branches, k_op, volume), volume), None

    return jax.lax.scan(step, volume, (jnp.arange(len(names)), jax.random.split(k_ops, len(names)), taken))[0]


def _same_type(op, key, volume):
    return op(key, volume).astype(volume.dtype)


def _one_of_each_family(key):
    """bool [operations]: those that a view has, one of each family that takes part."""
    k_families, k_ops = jax.random.split(key)
    families = jax.random.randint(k_families, (), 1, 2**len(FAMILIES))  # a bit for each
    taken = []
    for bit, family in enumerate(FAMILIES.values()):
        number = jax.random.randint(jax.random.fold_in(k_ops, bit), (), 0, len(family))
        taken.append((jnp.arange(len(family)) == number) & (families >> bit & 1 == 1))
    return jnp.concatenate(taken)


def cross_site(key: jax.Array, volume: jax.Array, depth: int, extent: jax.Array | None = None, plane: int = 0) -> jax.Array:
    """Neighbouring slices, plane x plane pixels from anywhere in the scan (0: all of it), each axis mirrored or not.

    The authors' code of contrastive cross-site COVID-Net: of slices whose shorter side is 256 a crop of 224. Nothing is
    interpolated.
    """
    k_depth, k_crop, k_mirror = jax.random.split(key, 3)
    volume = random_depth_crop(k_depth, volume, depth)
    if plane:
        volume = crop(k_crop, volume, plane, extent)
    return mirror(k_mirror, volume)


def moco(key: jax.Array, volume: jax.Array, depth: int, extent: jax.Array | None = None, plane: int = 0) -> jax.Array:
    """Neighbouring slices, a crop of a fifth of the plane or more resized, brightness and contrast in four of five views, blur in
    every other, left and right exchanged in every other. MoCo v2 on grey images, as Self-Trans has it (authors' code).

    Of a volume all slices alike. plane: height and width of the view; 0: those of the volume.
    """
    k_depth, k_crop, k_jitter, k_blur, k_mirror, k_taken = jax.random.split(key, 6)
    volume = random_depth_crop(k_depth, volume, depth)
    volume = random_resized_crop(k_crop, volume, area=(0.2, 1.0), plane=plane, extent=extent)
    jittered, blurred, mirrored = jax.random.bernoulli(k_taken, jnp.array([0.8, 0.5, 0.5]))
    volume = jnp.where(jittered, jitter(k_jitter, volume, 0.4, 0.4), volume)
    volume = jnp.where(blurred, blur(k_blur, volume), volume)
    return jnp.where(mirrored, volume[:, :, ::-1], volume)


def self_trans(key: jax.Array, volume: jax.Array, depth: int, extent: jax.Array | None = None, plane: int = 0) -> jax.Array:
    """Neighbouring slices, a crop of half the plane or more resized, left and right exchanged in every other view, brightness and
    contrast. Self-Trans section IV.B, fine-tuning. plane as in `moco`."""
    k_depth, k_crop, k_jitter, k_mirror = jax.random.split(key, 4)
    volume = random_depth_crop(k_depth, volume, depth)
    volume = random_resized_crop(k_crop, volume, area=(0.5, 1.0), plane=plane, extent=extent)
    volume = jnp.where(jax.random.bernoulli(k_mirror), volume[:, :, ::-1], volume)
    return jitter(k_jitter, volume, 0.2, 0.2)


def rubik(key: jax.Array, volume: jax.Array, depth: int) -> jax.Array:
    """Neighbouring slices, intensities times a factor from 0.9 to 1.1, each of the three axes mirrored or not. Dual-track ranking
    section IV.F.2, which does not say which axes."""
    k_depth, k_brightness, k_mirror = jax.random.split(key, 3)
    volume = random_depth_crop(k_depth, volume, depth)
    volume = brighten(k_brightness, volume, 0.1)
    return mirror(k_mirror, volume, axes=(0, 1, 2))


def none(key: jax.Array, volume: jax.Array, depth: int) -> jax.Array:
    """The middle slices as they are, whatever the key: for probes and baselines."""
    start = (volume.shape[0] - depth) // 2
    return volume[start:start + depth]


def _laws(name, ops, plane):
    """Those of training and of test-time augmentation: (key, volume, depth, extent) -> view."""
    return [_on_plane(law, plane) for law in _chosen(name, ops)]


def _on_plane(law, plane):
    if law in CUTTING:
        return partial(law, plane=plane)
    return lambda key, volume, depth, extent: law(key, whole(volume, plane, extent), depth)


def _chosen(name, ops):
    if name not in LAWS:
        raise UserError(f'no views are called {name!r}: set --config.views.name={"|".join(LAWS)}')
    if not ops:
        return LAWS[name]
    if name != 'cmt':
        raise UserError(f'--config.views.ops={tuple(ops)} is of the views called cmt: set --config.views.name=cmt')
    for op in ops:
        if op not in OPS:
            raise UserError(f'--config.views.ops: no operation is called {op!r}; there are: {", ".join(OPS)}')
    return [partial(law, ops=tuple(ops)) for law in LAWS[name]]


LAWS = {  # of training, of test-time augmentation
    'cmc': (cmc, cmc),
    'cmt': (cmt, cmt),
    'cross_site': (cross_site, cross_site),
    'moco': (moco, moco),
    'self_trans': (self_trans, self_trans),
    'rubik': (rubik, rubik),
    'none': (none, none),
}
CUTTING = cross_site, moco, self_trans  # laws that cut the plane out of the scan
