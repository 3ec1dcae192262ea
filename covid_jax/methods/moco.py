"""Momentum contrast, the self-supervised stages of Self-Trans (He et al., "Sample-Efficient Deep Learning for COVID-19 Diagnosis
Based on CT Scans", 2020): MoCo v2 (He et al., CVPR 2020; Chen et al. 2020).

Two random views of every scan go through two encoders, a network and an MLP each. The query encoder learns to tell the key of its own
scan from the keys of earlier batches, which a queue holds; the key encoder follows it as a moving average.
"""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from covid_jax import UserError
from covid_jax.losses.contrastive import info_nce
from covid_jax.methods.method import (
    Method,
    after_features,
    build_network,
    dropout_key,
    init_network,
    see,
    seen_in_test,
    training_view,
)
from covid_jax.models import sites
from covid_jax.models.heads import Projector, unit

DEFAULTS = {
    'queue': 512,  # keys of earlier batches; the batch must divide it
    'temperature': 0.07,  # of the contrastive loss; the paper gives none, the authors' code this
    'momentum': 0.999,  # of the key encoder
    'groups': 4,  # of rows that are normalised together, as on so many devices; whatever the devices are
    'projection': 128,  # width of queries and keys
}


def make(config: ConfigDict, mesh: Mesh) -> Method:
    """The Method of config.moco. UserError for numbers that cannot be, and for a network that normalises by site."""
    check(config)
    options = config.moco
    net = build_network(config, mesh, groups=options.groups)
    projector = Projector(options.projection)
    view = training_view(config)
    tested = seen_in_test(config)
    size = config.train.batch // options.groups  # of a group

    def init(key, batch, start=None):
        k_net, k_projector, k_queue = jax.random.split(key, 3)
        image = tested(batch, None)[:1]
        weights, collections = init_network(net, k_net, image)
        features = jax.eval_shape(net.apply, {'params': weights, **collections}, image)[1]['features']
        check_width(config.model.name, features.shape[1])
        own = projector.init(k_projector, jnp.zeros(features.shape))['params']
        params, collections = start or ({'network': weights, 'projector': own}, collections)
        queue = unit(jax.random.normal(k_queue, (options.queue, options.projection)))
        return params, {'network': collections, 'encoder': jax.tree.map(jnp.copy, params), 'queue': queue}

    def encode(params, collections, image, group, key):
        (_, out), collections = net.apply({'params': params['network'], **collections}, image, train=True, group=group,
                                          mutable=['batch_stats'], rngs={'dropout': key})
        return projector.apply({'params': params['projector']}, out['features']), collections

    def loss(params, state, batch, key, step):
        k_query, k_key, k_group = jax.random.split(key, 3)
        rows = len(batch['draw'])
        in_order = jnp.arange(rows) // size
        drawn = shuffled(jax.random.fold_in(k_group, step), in_order)
        encoder = jax.tree.map(lambda k, q: options.momentum * k + (1 - options.momentum) * q, state['encoder'],
                               jax.lax.stop_gradient(params))
        k_dropout, k_other_dropout = jax.random.split(dropout_key(key, step))
        query, collections = encode(params, state['network'], see(view, k_query, batch), in_order, k_dropout)
        other, _ = encode(encoder, state['network'], see(view, k_key, batch), drawn, k_other_dropout)
        values, nearest = info_nce(query, other, state['queue'], options.temperature)
        queue = jnp.concatenate([other, state['queue']])[:options.queue]
        scalars = {'nearest': jnp.mean(nearest), 'spread': spread(query)}
        return jnp.mean(values), ({'network': collections, 'encoder': encoder, 'queue': queue}, scalars)

    def predict(params, state, batch, key=None):
        _, out = net.apply({'params': params['network'], **state['network']}, tested(batch, key))
        return {'features': out['features']}

    collapsed = 'the embeddings of a batch are nearly alike: what is learnt tells no scan from another'
    return Method(net, init, loss, predict, after_features, labelled=False, scores=('nearest',),
                  least={'spread': (COLLAPSED, collapsed)})


def shuffled(key: jax.Array, groups: jax.Array) -> jax.Array:
    """The groups of the keys, int [batch], from those of the queries (MoCo section 3.3, "Shuffling BN"): the statistics alone are
    shuffled, for images would travel between devices."""
    return jax.random.permutation(key, groups)


COLLAPSED = 0.05  # of the spread of embeddings
WIDEST = 8192  # features of a network, of whose number the MLP has the square


def spread(z: jax.Array) -> jax.Array:
    """How far rows of unit length [n, dim] are apart: their standard deviation, all dimensions together. 0: all are one; 1: they point
    everywhere."""
    z = z.astype(jnp.promote_types(z.dtype, jnp.float32))
    return jnp.sqrt(jnp.sum(jnp.var(z, 0)))


def check_width(name: str, features: int) -> None:
    """UserError for a network of so many features that its MLP would be larger than any network here."""
    if features > WIDEST:
        raise UserError(f'{name} has {features:,} features, of which the MLP of momentum contrast would make {features**2:,} parameters: '
                        'take another --config.model.name')


def check(config: ConfigDict) -> None:
    """UserError as `make`."""
    options = config.moco
    batch = config.train.batch
    for name in ('queue', 'groups', 'projection'):
        if options[name] < 1:
            raise UserError(f'--config.moco.{name}={options[name]} must be at least 1')
    if options.queue % batch:
        raise UserError(f'--config.moco.queue={options.queue} must be a multiple of --config.train.batch={batch}, so that all keys of '
                        'a batch leave it together')
    if batch % options.groups or batch == options.groups:
        raise UserError(f'--config.train.batch={batch} must be a multiple of --config.moco.groups={options.groups}, with two scans or '
                        'more in a group')
    if options.temperature <= 0 or not 0 <= options.momentum <= 1:
        raise UserError(f'--config.moco.temperature={options.temperature} must be above 0, and --config.moco.momentum='
                        f'{options.momentum} from 0 to 1')
    if sites(config.model.name, config.model.sites):
        raise UserError(f'{config.model.name} normalises by site, and momentum contrast by groups of rows: take another '
                        '--config.model.name')
