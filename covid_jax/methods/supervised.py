"""Plain supervised classification: one random view of every scan, cross entropy."""

import jax
import jax.numpy as jnp

from covid_jax.losses.classification import cross_entropy
from covid_jax.methods.method import Method, build_network, dropout_key, predictor, random_views, to_float, view_depth


def make(config, mesh):
    net = build_network(config, mesh)
    depth = view_depth(config)

    def init(key, batch):
        variables = net.init(key, to_float(batch['image'][:1]))
        return {'network': variables['params']}, {k: v for k, v in variables.items() if k != 'params'}

    def loss(params, state, batch, key, step):
        image = random_views(key, to_float(batch['image']), batch['draw'], depth)
        (logits, _), state = net.apply({'params': params['network'], **state}, image, train=True, site=batch['site'],
                                       mutable=['batch_stats'], rngs={'dropout': dropout_key(key, step)})
        target = jax.nn.one_hot(batch['label'], logits.shape[-1])
        value = jnp.mean(cross_entropy(logits, target))
        return value, (state, {'clf': value})

    return Method(init, loss, predictor(net))
