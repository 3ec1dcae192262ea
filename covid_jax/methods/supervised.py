"""Plain supervised classification: one random view of every scan, cross entropy; of the whole network, or of its classifier
on a frozen trunk (a linear probe), or beside a second task, by how many quarters the view was turned."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from covid_jax import UserError
from covid_jax.augment.image import quarter_turn
from covid_jax.losses.classification import cross_entropy
from covid_jax.methods.method import (
    Method,
    build_network,
    dropout_key,
    init_network,
    predictor,
    row_keys,
    see,
    seen_in_test,
    training_view,
)
from covid_jax.models.heads import Classifier

DEFAULTS = {
    'frozen': False,  # train the classifier alone; the rest stays as it started, and normalises by its running statistics
    'rotation': False,  # turn each view by quarters, and tell by how many beside the class (Self-Trans, Method 4)
}
QUARTERS = 4


def make(config: ConfigDict, mesh: Mesh) -> Method:
    """The Method of config.supervised."""
    net = build_network(config, mesh)
    view = training_view(config)
    tested = seen_in_test(config)
    frozen = config.supervised.frozen
    turned = config.supervised.rotation
    if frozen and turned:
        raise UserError('a frozen network learns no second task: set --config.supervised.rotation=False')
    rotation = Classifier(QUARTERS)

    def init(key, batch, start=None):
        image = tested(batch, None)[:1]
        weights, collections = init_network(net, key, image)
        params = {'network': weights}
        if turned:
            _, out = jax.eval_shape(net.apply, {'params': weights, **collections}, image, site=batch['site'][:1])
            params['rotation'] = rotation.init(jax.random.fold_in(key, 1), jnp.zeros(out['features'].shape))['params']
        params, collections = start or (params, collections)
        return params, {'network': collections}

    def outputs(params, state, image, site, key):
        if frozen:
            weights = {name: w if name == 'classifier' else jax.lax.stop_gradient(w)
                       for name, w in params['network'].items()}
            return net.apply({'params': weights, **state['network']}, image, site=site), state['network']
        return net.apply({'params': params['network'], **state['network']}, image, train=True, site=site,
                         mutable=['batch_stats'], rngs={'dropout': key})

    def loss(params, state, batch, key, step):
        image = see(view, key, batch)
        if turned:
            quarters = jax.vmap(lambda k: jax.random.randint(k, (), 0, QUARTERS))(row_keys(key, 'quarters', batch['draw']))
            image = jax.vmap(quarter_turn)(quarters, image)
        (logits, out), collections = outputs(params, state, image, batch['site'], dropout_key(key, step))
        target = jax.nn.one_hot(batch['label'], logits.shape[-1])
        value = jnp.mean(cross_entropy(logits, target))
        scalars = {'clf': value}
        if turned:
            angles = rotation.apply({'params': params['rotation']}, out['features'])
            scalars['rotation'] = jnp.mean(cross_entropy(angles, jax.nn.one_hot(quarters, QUARTERS)))
            value = value + scalars['rotation']
        return value, ({**state, 'network': collections}, scalars)

    def untouched(params):
        if not frozen:
            return None
        return {'network': {name: jax.tree.map(lambda _, n=name: n != 'classifier', w)
                            for name, w in params['network'].items()}}

    return Method(net, init, loss, predictor(net, config), untouched)
