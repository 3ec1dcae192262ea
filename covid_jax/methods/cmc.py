"""CMC-COV19D: contrastive mixup classification (Hou et al., ICCV workshops 2021).

Two random views of every scan go through one 3D encoder; a classifier and, for the contrastive loss, a projection head
stand on its pooled features. The three losses are weighed by two learned sigmas (Eq 7).
"""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from covid_jax import UserError
from covid_jax.augment.mixup import mix, partner_views
from covid_jax.losses.classification import cross_entropy
from covid_jax.losses.contrastive import supcon
from covid_jax.methods.method import (
    Method,
    build_network,
    dropout_key,
    init_network,
    predictor,
    seen_in_test,
    training_view,
    two_views,
)
from covid_jax.models.heads import Projector

DEFAULTS = {
    'classification': True,  # False: without the loss of the classes
    'contrastive': True,  # False: without the contrastive loss
    'temperature': 0.1,  # of the contrastive loss; the paper gives none, the authors' code this
    'base_temperature': 0.0,  # 0.07: rescaled as the authors' code does
    'mixup': 0.5,  # Beta(a, a) of the mixing weight; 0: no mixup
    'projection': 128,  # width of what the contrastive loss compares
}

LARGEST_LOG_SIGMA = 4.0  # a loss near zero must not send its weight to infinity


def joint_loss(contrastive: jax.Array, classification: jax.Array, log_sigma: jax.Array) -> jax.Array:
    """Eq 7 with s = log sigma [2], clamped to [-4, 4]."""
    s = jnp.clip(log_sigma, -LARGEST_LOG_SIGMA, LARGEST_LOG_SIGMA)
    return jnp.exp(-s[0]) * contrastive + s[0] + jnp.exp(-s[1]) * classification + s[1]


def mixed_views(key: jax.Array, step: jax.Array | int, views: jax.Array, target: jax.Array, draw: jax.Array,
                alpha: float) -> tuple[jax.Array, jax.Array]:
    """Eq 5: views and targets [2 n, ...], each mixed with a view of the neighbouring scan; one weight for the batch."""
    k_weight, k_coin = jax.random.split(key)
    weight = jax.random.beta(jax.random.fold_in(k_weight, step), alpha, alpha)
    swap = jax.vmap(lambda d: jax.random.bernoulli(jax.random.fold_in(k_coin, d)))(draw[::2])
    return (mix(views, partner_views(views, swap), weight), mix(target, partner_views(target, swap), weight))


def make(config: ConfigDict, mesh: Mesh) -> Method:
    """The Method of config.cmc. UserError for numbers that cannot be, for a batch that leaves a scan without a partner, and where nothing
    trains the classifier."""
    check(config)
    options = config.cmc
    net = build_network(config, mesh)
    view = training_view(config)
    tested = seen_in_test(config)
    projector = Projector(options.projection)

    def init(key, batch, start=None):
        k_net, k_projector = jax.random.split(key)
        image = tested(batch, None)[:1]
        weights, collections = init_network(net, k_net, image)
        params = {'network': weights}
        if options.contrastive:
            features = net.apply({'params': weights, **collections}, image, site=batch['site'][:1])[1]['features']
            params['projector'] = projector.init(k_projector, features)['params']
            params['log_sigma'] = jnp.ones(2)
        params, collections = start or (params, collections)
        return params, {'network': collections}

    def encode(params, state, views, site, key):
        return net.apply({'params': params['network'], **state['network']}, views, train=True, site=site,
                         mutable=['batch_stats'], rngs={'dropout': key})

    def loss(params, state, batch, key, step):
        k_views, k_mix = jax.random.split(key)
        k_dropout = dropout_key(key, step)
        label = jnp.repeat(batch['label'], 2)
        site = jnp.repeat(batch['site'], 2)
        views = two_views(view, k_views, batch)
        (logits, out), collections = encode(params, state, views, site, k_dropout)
        state_after = {**state, 'network': collections}
        target = jax.nn.one_hot(label, logits.shape[-1])
        classification = 0.0
        scalars = {}
        if options.classification:
            classification = scalars['clf'] = jnp.mean(cross_entropy(logits, target))  # Eq 3
        if options.mixup:
            mixed, soft = mixed_views(k_mix, step, views, target, batch['draw'], options.mixup)
            # running statistics come from the clean pass alone
            (mix_logits, _), _ = encode(params, state, mixed, site, k_dropout)
            scalars['mix'] = jnp.mean(cross_entropy(mix_logits, soft))  # Eq 6
            classification = classification + scalars['mix']
        if not options.contrastive:
            return classification, (state_after, scalars)
        z = projector.apply({'params': params['projector']}, out['features'])
        contrastive = jnp.mean(supcon(z, label, options.temperature, options.base_temperature or None))  # Eq 1
        log_sigma = params['log_sigma']
        scalars |= {'con': contrastive, 'log_sigma_con': log_sigma[0], 'log_sigma_clf': log_sigma[1]}
        return joint_loss(contrastive, classification, log_sigma), (state_after, scalars)

    return Method(net, init, loss, predictor(net, config))


def check(config: ConfigDict) -> None:
    """UserError as `make`."""
    options = config.cmc
    if options.temperature <= 0 or options.base_temperature < 0 or options.mixup < 0:
        raise UserError(f'--config.cmc.temperature={options.temperature} must be above 0, --config.cmc.base_temperature='
                        f'{options.base_temperature} and --config.cmc.mixup={options.mixup} at least 0')
    if options.projection < 1:
        raise UserError(f'--config.cmc.projection={options.projection} must be at least 1')
    if config.train.batch % 2 and options.mixup:
        raise UserError(f'mixup pairs neighbouring scans: --config.train.batch={config.train.batch} must be even')
    if not options.classification and not options.mixup:
        raise UserError('nothing trains the classifier: set --config.cmc.classification=True or --config.cmc.mixup=0.5')
