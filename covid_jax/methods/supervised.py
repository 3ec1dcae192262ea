"""Plain supervised classification: one random view of every scan, cross entropy or a loss that looks at what is hard; of the whole
network, or of its classifier on a frozen trunk (a linear probe), or beside a second task, by how many quarters the view was turned."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from covid_jax import UserError
from covid_jax.augment.image import quarter_turn
from covid_jax.losses.classification import cross_entropy, focal, ohem
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
    'loss': 'cross_entropy',  # of the class: cross_entropy | focal, of gamma 2 and alpha 0.25 | ohem
    'keep': 0.5,  # of ohem: the share of a batch, the rows with the largest loss, that is learnt from
}
LOSSES = 'cross_entropy', 'focal', 'ohem'
QUARTERS = 4


def make(config: ConfigDict, mesh: Mesh) -> Method:
    """The Method of config.supervised."""
    net = build_network(config, mesh)
    view = training_view(config)
    tested = seen_in_test(config)
    options = config.supervised
    frozen = options.frozen
    turned = options.rotation
    _check(options)
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
        value = class_loss(logits, target, options.loss, options.keep)
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


def class_loss(logits: jax.Array, target: jax.Array, name: str, keep: float) -> jax.Array:
    """Scalar float32: the mean of the loss called `name`, one of LOSSES; of ohem that of cross entropy over the hardest rows.

    logits, target [n, classes]; keep: the share of rows that ohem takes.
    """
    if name == 'focal':
        return jnp.mean(focal(logits, target))
    losses = cross_entropy(logits, target)
    if name == 'ohem':
        hardest = ohem(losses, keep)
        return jnp.sum(losses * hardest) / jnp.sum(hardest)
    return jnp.mean(losses)


def _check(options):
    """UserError for options that cannot be, or cannot be together."""
    if options.loss not in LOSSES:
        raise UserError(f'--config.supervised.loss={options.loss} must be {", ".join(LOSSES[:-1])} or {LOSSES[-1]}')
    if not 0 < options.keep <= 1:
        raise UserError(f'--config.supervised.keep={options.keep} must be above 0 and at most 1, as 0.5')
    if options.frozen and options.rotation:
        raise UserError('a frozen network learns no second task: set --config.supervised.rotation=False')
