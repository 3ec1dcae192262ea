"""Plain supervised classification: one random view of every scan, cross entropy; of the whole network, or of its classifier
on a frozen trunk (a linear probe)."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from covid_jax.losses.classification import cross_entropy
from covid_jax.methods.method import (
    Method,
    build_network,
    dropout_key,
    init_network,
    predictor,
    see,
    seen_in_test,
    training_view,
)

DEFAULTS = {
    'frozen': False,  # train the classifier alone; the rest stays as it started, and normalises by its running statistics
}


def make(config: ConfigDict, mesh: Mesh) -> Method:
    """The Method of config.supervised."""
    net = build_network(config, mesh)
    view = training_view(config)
    tested = seen_in_test(config)
    frozen = config.supervised.frozen

    def init(key, batch, start=None):
        weights, collections = init_network(net, key, tested(batch, None))
        params, collections = start or ({'network': weights}, collections)
        return params, {'network': collections}

    def logits_of(params, state, image, site, key):
        if frozen:
            weights = {name: w if name == 'classifier' else jax.lax.stop_gradient(w)
                       for name, w in params['network'].items()}
            return net.apply({'params': weights, **state['network']}, image, site=site)[0], state['network']
        (logits, _), collections = net.apply({'params': params['network'], **state['network']}, image, train=True, site=site,
                                             mutable=['batch_stats'], rngs={'dropout': key})
        return logits, collections

    def loss(params, state, batch, key, step):
        image = see(view, key, batch)
        logits, collections = logits_of(params, state, image, batch['site'], dropout_key(key, step))
        target = jax.nn.one_hot(batch['label'], logits.shape[-1])
        value = jnp.mean(cross_entropy(logits, target))
        return value, ({**state, 'network': collections}, {'clf': value})

    def untouched(params):
        if not frozen:
            return None
        return {'network': {name: jax.tree.map(lambda _, n=name: n != 'classifier', w)
                            for name, w in params['network'].items()}}

    return Method(net, init, loss, predictor(net, config), untouched)
