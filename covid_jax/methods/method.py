"""What a method is: pure functions, made from a config. The loop knows nothing else of it."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from zlib import crc32

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from covid_jax import UserError
from covid_jax.augment import views
from covid_jax.augment.views import View
from covid_jax.data.prep import LONGEST
from covid_jax.models import NETWORKS, has, network
from covid_jax.models.compute import Compute
from covid_jax.models.conv import form_for
from covid_jax.sources.exams import class_names

Batch = Mapping[str, jax.Array]
MAX_STORED = 255  # of the uint8 that prepared scans are
BEYOND = ('fc2', 'hidden', 'classifier')  # modules of a network that come after its features


class Method(NamedTuple):
    """network: its parameters are params['network'], whole even where a part is unused and frozen; its collections
    (running statistics) are state['network']. All else in params and state is the method's own.

    init(key, batch, start=None)            -> params, state    state: all without a gradient, a copy, never an alias of params.
                                               start: (params, collections of the network) of the same structure, as a run or a
                                               file has them; what is derived from params (a key encoder) is derived from these
    loss(params, state, batch, key, step)   -> scalar, (state, scalars)
    predict(params, state, batch, key=None) -> {'features' [batch, dim], 'logits' [batch, classes] where the method classifies,
                                               further [batch] columns}; a key draws the views of test-time augmentation
    frozen(params)                          -> tree of bool: what the optimizer must not touch; None: nothing
    labelled: whether the loss reads batch['label']
    scores: those of the loss's scalars that may choose a checkpoint, the highest the best
    warm_up: steps in which what answers learns nothing yet
    least: {scalar of the loss: (a value, what it means where the scalar is below)}
    """

    network: nn.Module
    init: Callable
    loss: Callable
    predict: Callable
    frozen: Callable = lambda params: None
    labelled: bool = True
    scores: tuple[str, ...] = ()
    warm_up: int = 0
    least: Mapping[str, tuple[float, str]] = MappingProxyType({})


def row_keys(key: jax.Array, name: str, draw: jax.Array) -> jax.Array:
    """One key for each row, from its draw (uint32 [batch]) and never from its place in the batch."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, crc32(name.encode())), draw)


def dropout_key(key: jax.Array, step: jax.Array | int) -> jax.Array:
    """The key of a step's dropout, which only some networks have."""
    return jax.random.fold_in(jax.random.fold_in(key, crc32(b'dropout')), step)


def to_float(image: jax.Array) -> jax.Array:
    """Stored integers (uint8) -> float32 in [0, 1]."""
    return image.astype(jnp.float32) / MAX_STORED


def abstract_batch(config: ConfigDict, n: int) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch of n scans, as shapes."""
    depth, height, width = config.prep.size
    aspect = config.prep.keep_aspect
    plane = (LONGEST * height, LONGEST * width) if aspect else (height, width)
    fields = {'label': jnp.int32, 'site': jnp.int32, 'draw': jnp.uint32}
    return {'image': jax.ShapeDtypeStruct((n, depth, *plane, 1), jnp.uint8),
            **({'extent': jax.ShapeDtypeStruct((n, 2), jnp.int32)} if aspect else {}),
            **{name: jax.ShapeDtypeStruct((n,), dtype) for name, dtype in fields.items()}}


def build_network(config: ConfigDict, mesh: Mesh, fields: Mapping[str, Any] = MappingProxyType({}), **compute: Any) -> nn.Module:
    """The config's network, in the compute type and the form of convolution that suit the mesh's platform; of a family in 2D
    and 3D the 2D one, where a prepared scan has one slice. fields: further ones of the network; compute: of its `Compute`."""
    platform = mesh.devices.flat[0].platform
    model = config.model
    dtype = model.dtype
    if dtype == 'auto':
        dtype = 'float32' if platform == 'cpu' else 'bfloat16'
    asked = {name: model[name] for name in ('taps', 'stem_plane', 'depth_strides', 'sites') if model[name]}
    if config.prep.size[0] == 1 and model.name in NETWORKS and has(model.name, 'taps'):
        asked.setdefault('taps', 1)
    how = Compute(mean=model.mean, std=model.std, dtype=dtype, form=form_for(platform), remat=model.remat, **compute)
    return network(model.name, **asked)(**fields, classes=len(class_names(config.data.classes)), compute=how)


def init_network(net: nn.Module, key: jax.Array, image: jax.Array) -> tuple[dict, dict]:
    """The network's parameters and its collections, freshly initialised from the first row of images as `seen_in_test`."""
    variables = dict(net.init(key, image[:1]))
    return variables.pop('params'), variables


def after_features(params: dict) -> dict:
    """Tree of bool, as `frozen` gives it: the modules of the network that come after its features, unused where nothing reads its
    logits."""
    mask = jax.tree.map(lambda _: False, params)
    for name in mask['network'].keys() & {*BEYOND}:
        mask['network'][name] = jax.tree.map(lambda _: True, mask['network'][name])
    return mask


def training_view(config: ConfigDict) -> View:
    """(key, volume, extent=None) -> view, the law that config.views names, of as many slices as it says, and of its plane; a scan
    of one slice has views of one. UserError where a prepared scan has fewer slices, or a smaller plane."""
    depth = config.views.depth
    slices = config.prep.size[0]
    if not 0 <= depth <= slices and slices > 1:
        raise UserError(f'--config.views.depth={depth} must be from 1 to the depth of a prepared scan, {slices}, or 0 for all')
    return views.train_view(config.views.name, min(depth, slices), config.views.ops, plane_of(config))


def plane_of(config: ConfigDict) -> int:
    """Height and width of what the network sees; 0: those of config.prep.size, which may differ. UserError where a prepared scan
    has fewer."""
    plane = config.views.plane
    least = min(config.prep.size[1:])
    if plane > least:
        raise UserError(f'--config.views.plane={plane} must be at most the height and the width of a prepared scan, here {least}: '
                        'set a larger --config.prep.size')
    return plane or (least if config.prep.keep_aspect else 0)


def see(view: View, key: jax.Array, batch: Batch) -> jax.Array:
    """One random view of every scan of a batch: float32 [batch, depth of a view, height, width, 1]."""
    return _seen(view, key, _scans(batch), batch['draw'])


def two_views(view: View, key: jax.Array, batch: Batch) -> jax.Array:
    """float32 [2 n, depth of a view, height, width, 1] of a batch of n, rows 2k and 2k + 1 the views of scan k."""
    scans = _scans(batch)
    k1, k2 = jax.random.split(key)
    views = jnp.stack([_seen(view, k1, scans, batch['draw']), _seen(view, k2, scans, batch['draw'])], 1)
    return views.reshape(-1, *views.shape[2:])


def seen_in_test(config: ConfigDict) -> Callable[[Batch, jax.Array | None], jax.Array]:
    """(batch, key or None) -> image float32 [batch, depth, height, width, 1]: the scans themselves, squashed to the plane of
    config.views, with a key through its test view, one pass of test-time augmentation."""
    plane = plane_of(config)
    view = views.test_view(config.views.name, config.views.ops, plane)

    def seen(batch, key):
        if key is not None:
            return see(view, key, batch)
        return jax.vmap(lambda image, extent=None: views.whole(image, plane, extent))(*_scans(batch))

    return seen


def _seen(view, key, scans, draw):
    return jax.vmap(view)(row_keys(key, 'view', draw), *scans)


def _scans(batch):
    """What a view takes after its key: images, with the extent of each where they have one."""
    image = to_float(batch['image'])
    return (image, batch['extent']) if 'extent' in batch else (image,)


def predictor(net: nn.Module, config: ConfigDict) -> Callable:
    """predict() of every method that answers with its network's logits."""
    tested = seen_in_test(config)

    def predict(params, state, batch, key=None):
        image = tested(batch, key)
        logits, out = net.apply({'params': params['network'], **state['network']}, image, site=batch['site'])
        columns = {name: out[name] for name in ('sites',) if name in out}
        return {'features': out['features'], 'logits': logits, **columns}

    return predict
