"""A method as small as one can be that needs all of the contract: no labels, no logits, a key encoder and a queue in its
state. For tests alone: `python tests/dummy.py FLAGS` is the real command with this method known to it."""

import jax
import jax.numpy as jnp

from covid_jax.methods.method import Method, build_network, init_network, see, seen_in_test, training_view
from covid_jax.models.heads import unit

DEFAULTS = {'queue': 16, 'momentum': 0.9}


def make(config, mesh):
    net, view, m = build_network(config, mesh), training_view(config), config.dummy.momentum
    tested = seen_in_test(config)

    def init(key, batch, start=None):
        weights, collections = init_network(net, key, tested(batch, None))
        params, collections = start or ({'network': weights}, collections)
        dim = params['network']['classifier']['Dense_0']['kernel'].shape[0]
        queue = unit(jax.random.normal(key, (config.dummy.queue, dim)))
        return params, {'network': collections, 'key': jax.tree.map(jnp.copy, params), 'queue': queue}

    def encode(params, state, image, site):
        (_, out), collections = net.apply({'params': params['network'], **state['network']}, image, train=True, site=site,
                                          mutable=['batch_stats'])
        return unit(out['features']), collections

    def loss(params, state, batch, key, step):
        one, two = (see(view, k, batch) for k in jax.random.split(key))
        encoder = jax.tree.map(lambda k, q: m * k + (1 - m) * jax.lax.stop_gradient(q), state['key'], params)
        query, collections = encode(params, state, one, batch['site'])
        keys = jax.lax.stop_gradient(encode(encoder, state, two, batch['site'])[0])
        logits = jnp.concatenate([jnp.sum(query * keys, -1, keepdims=True), query @ state['queue'].T], 1) / 0.2
        queue = jnp.concatenate([keys, state['queue']])[:config.dummy.queue]
        value = jnp.mean(jax.nn.logsumexp(logits, 1) - logits[:, 0])
        nearest = jnp.mean(jnp.argmax(logits, 1) == 0)
        return value, ({'network': collections, 'key': encoder, 'queue': queue}, {'nearest': nearest})

    def predict(params, state, batch, key=None):
        _, out = net.apply({'params': params['network'], **state['network']}, tested(batch, None), site=batch['site'])
        return {'features': out['features']}

    return Method(net, init, loss, predict, labelled=False, scores=('nearest',))


def two_stages(folds=1, seeds=1):
    """The dummy on 16 unlabelled phantoms, then its network classifies 24 others; small enough for seconds."""
    from covid_jax.config import base, set_stages

    c = base()
    c.method, c.dummy = 'dummy', DEFAULTS
    c.data.workers = 1
    c.prep.size = (8, 16, 16)
    c.model.name = '_ResNetTiny'
    c.train.update(batch=8, epochs=3.0)
    c.data.phantom.update(train=16, val=4, test=4)
    set_stages(c, {
        'pretrain': {'data': {'phantom': {'seed': 9, 'train': 16, 'val': 0, 'test': 0, 'unlabelled': 1.0}},
                     'folds': 1, 'seeds': 1},
        'finetune': {'method': 'supervised', 'supervised': {'frozen': False}, 'init_from': 'pretrain'},
    })
    c.folds, c.seeds = folds, seeds
    return c.lock()


def get_config(arg=''):
    return two_stages()


if __name__ == '__main__':
    from pytest import MonkeyPatch
    from small_scans import hasten

    from covid_jax import methods
    from covid_jax.main import main

    hasten(MonkeyPatch())
    methods.METHODS['dummy'] = __import__('dummy')
    main()
