"""CMT-CNN: multi-task contrastive learning (Li et al., Pattern Recognition 2021).

Two random views of every scan go through one network to the latent r. The main task classifies r; the auxiliary task draws the
two views of a scan together and away from all others, on r itself, without a projection head. Eq 8 adds the two.
"""

from collections.abc import Callable, Mapping
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from covid_jax import UserError
from covid_jax.losses.classification import cross_entropy
from covid_jax.losses.contrastive import nt_xent
from covid_jax.methods.method import (
    Method,
    after_features,
    build_network,
    dropout_key,
    init_network,
    seen_in_test,
    training_view,
    two_views,
)
from covid_jax.models import sites
from covid_jax.models.attention import AttentionDecoder
from covid_jax.models.heads import Classifier, unit
from covid_jax.sources.exams import class_names

DEFAULTS = {
    'classification': True,  # False: the contrastive loss alone, and no classifier
    'weight': 0.25,  # of the contrastive loss, lambda of Eq 8; 0: the classification alone
    'temperature': 0.1,  # of the contrastive loss
    'classified': 'both',  # both views | the first | clean: the scan itself, in a third pass
    'latent': 4096,  # width of r, a dense layer and ReLU on the network's features; 0: r is these features
    'attention': False,  # the decoder of Fig 5 between trunk and head
}

CLASSIFIED = ('both', 'first', 'clean')
OWN = 'attention', 'latent', 'classifier'  # modules of the method beside its network, where the options ask for them


def make(config: ConfigDict, mesh: Mesh) -> Method:
    """The Method of config.cmt. UserError for numbers and words that cannot be, and for a batch without a second scan."""
    check(config)
    options = config.cmt
    net = build_network(config, mesh)
    view = training_view(config)
    tested = seen_in_test(config)
    modules = own_modules(config)
    encode = encoder(config, net, modules)

    def init(key, batch, start=None):
        k_net, *keys = jax.random.split(key, 1 + len(OWN))
        image = tested(batch, None)[:1]
        weights, collections = init_network(net, k_net, image)
        run = partial(net.apply, {'params': weights, **collections}, image, site=batch['site'][:1])
        inputs = {'attention': run(method='trunk'), 'latent': run()[1]['features'], 'classifier': jnp.zeros((1, options.latent))}
        own = {name: modules[name].init(k, inputs[name])['params'] for name, k in zip(OWN, keys, strict=True) if name in modules}
        params, collections = start or ({'network': weights, **own}, collections)
        return params, {'network': collections}

    def loss(params, state, batch, key, step):
        k_dropout = dropout_key(key, step)
        views = two_views(view, key, batch)
        seen, collections = encode(params, state['network'], views, jnp.repeat(batch['site'], 2), k_dropout)
        scalars = {}
        value = 0.0
        if options.weight or not options.classification:
            scalars['con'] = jnp.mean(nt_xent(unit(seen['features'].astype(jnp.float32)), options.temperature))  # Eq 3
            value = scalars['con'] * (options.weight if options.classification else 1.0)
        if options.classification:
            if options.classified == 'clean':  # whose running statistics are those of evaluation
                seen, collections = encode(params, state['network'], tested(batch, None), batch['site'], k_dropout)
            logits = seen['logits'][::2] if options.classified == 'first' else seen['logits']
            label = jnp.repeat(batch['label'], len(logits) // len(batch['label']))
            scalars['clf'] = jnp.mean(cross_entropy(logits, jax.nn.one_hot(label, logits.shape[-1])))  # Eq 6
            value = value + scalars['clf']  # Eq 8
        return value, ({**state, 'network': collections}, scalars)

    def predict(params, state, batch, key=None):
        return encode(params, state['network'], tested(batch, key), batch['site'])[0]

    def untouched(params):
        return after_features(params) if options.latent or not options.classification else None

    return Method(net, init, loss, predict, untouched, labelled=options.classification)


def own_modules(config: ConfigDict) -> dict[str, nn.Module]:
    """{name of OWN: module}, what the method has beside its network."""
    options = config.cmt
    modules: dict[str, nn.Module] = {}
    if options.attention:
        modules['attention'] = AttentionDecoder()
    if options.latent:
        modules['latent'] = nn.Dense(options.latent)
    if options.latent and options.classification:
        modules['classifier'] = Classifier(len(class_names(config.data.classes)))
    return modules


def encoder(config: ConfigDict, net: nn.Module, modules: Mapping[str, nn.Module]) -> Callable:
    """encode(params, collections, image, site, key=None) -> {'features': r, 'logits' where the method classifies, further
    columns}, and the collections after the pass. key: of dropout, for a pass of training."""

    def own(name, params, x):
        return modules[name].apply({'params': params[name]}, x)

    def through(params, collections, x, site, key, method=None):
        run = partial(net.apply, {'params': params['network'], **collections}, x, site=site, method=method)
        if key is None:
            return run(), collections
        return run(train=True, mutable=['batch_stats'], rngs={'dropout': key})

    def encode(params, collections, image, site, key=None):
        columns = {}
        if 'attention' in modules:
            x, collections = through(params, collections, image, site, key, 'trunk')
            gate, _ = own('attention', params, x)
            (logits, r), collections = through(params, collections, x * gate, site, key, 'head')
        else:
            (logits, out), collections = through(params, collections, image, site, key)
            r = out['features']
            if 'latent' not in modules and 'sites' in out:
                columns['sites'] = out['sites']
        if 'latent' in modules:
            r = nn.relu(own('latent', params, r))
        if config.cmt.classification:
            columns['logits'] = own('classifier', params, r) if 'classifier' in modules else logits
        return {'features': r, **columns}, collections

    return encode


def check(config: ConfigDict) -> None:
    """UserError as `make`."""
    options = config.cmt
    if options.classified not in CLASSIFIED:
        raise UserError(f'--config.cmt.classified={options.classified} must be {", ".join(CLASSIFIED[:-1])} or {CLASSIFIED[-1]}')
    if options.weight < 0 or options.latent < 0:
        raise UserError(f'--config.cmt.weight={options.weight} and --config.cmt.latent={options.latent} must be at least 0')
    if options.temperature <= 0:
        raise UserError(f'--config.cmt.temperature={options.temperature} must be above 0')
    if config.train.batch < 2:
        raise UserError('a scan is told from the others of its batch: --config.train.batch must be at least 2')
    if options.attention and (config.model.sites or sites(config.model.name)) > 1:
        raise UserError(f'{config.model.name} answers by site, which the attention does not: set --config.cmt.attention=False')
