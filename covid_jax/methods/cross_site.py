"""Contrastive cross-site COVID-Net: joint learning from several hospitals (Wang, Liu and Dou, JBHI 2020).

One view of every scan, of all sites in one batch, goes through a COVID-Net whose normalisation is each site's own. Cross entropy
trains all of it; the contrastive loss draws the scans of one class together, whatever their site, in the space of an embedding
network that nothing else trains (Eq 5). The paper's baselines are the same with less, or with adapters, or with MS-Net's heads.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from covid_jax import UserError
from covid_jax.losses.classification import cross_entropy
from covid_jax.losses.contrastive import label_pairs
from covid_jax.methods import ms_net
from covid_jax.methods.method import (
    Method,
    build_network,
    init_network,
    predictor,
    see,
    seen_in_test,
    training_view,
)
from covid_jax.models import has, network, sites
from covid_jax.models.adapters import SeriesAdapter, SiteConv
from covid_jax.models.covidnet import Hidden
from covid_jax.models.heads import unit
from covid_jax.models.norm import DomainBatchNorm

DEFAULTS = {
    'alpha': 1.0,  # weight of the contrastive loss, Eq 5; 0: none, and no embedding network
    'temperature': 0.05,  # of the contrastive loss
    'embedding': (1024, 128),  # widths of the embedding network
    'embedding_relu': False,  # True: after its last layer too (authors' code)
    'head_norm': False,  # True: the dense layers normalise by site too, the embedding network's as well (authors' code, bna)
    'pool': 0,  # rows and columns that the last map is pooled to; 0: the network's own
    'p33': True,  # False: a slip of the authors' code, see models/covidnet.py
    'adapter': '',  # of each site: series | parallel
    'teachers': False,  # MS-Net: a classifier for each site, which trains the one for all
    'warm_up': 500,  # steps that the teachers train before it does
}

ADAPTERS = ('', 'series', 'parallel')


def make(config: ConfigDict, mesh: Mesh) -> Method:
    """The Method of config.cross_site. UserError for numbers and words that cannot be, and for a network that is no COVID-Net."""
    check(config)
    options = config.cross_site
    net = covidnet(config, mesh)
    view = training_view(config)
    tested = seen_in_test(config)
    embedding = Hidden(tuple(options.embedding), last_relu=options.embedding_relu)

    def init(key, batch, start=None):
        k_net, k_embedding, k_teachers = jax.random.split(key, 3)
        image = tested(batch, None)[:1]
        weights, collections = init_network(net, k_net, image)
        params = {'network': weights}
        run = partial(net.apply, {'params': weights, **collections}, image, site=batch['site'][:1])
        _, out = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(run))
        if options.alpha:
            params['embedding'] = embedding.init(k_embedding, out['features'], norms(batch['site'][:1]))['params']
        if options.teachers:
            params['teachers'] = ms_net.teachers(net, k_teachers, out['map'], net.sites)
        params, collections = start or (params, collections)
        return params, {'network': collections}

    def norms(site):
        """As Hidden takes them, None where the head has none."""
        if not options.head_norm:
            return None
        return lambda name: partial(DomainBatchNorm(net.sites, use_running_average=False, name=name), site=site)

    def contrastive(params, features, batch):
        """The mean of Eq 4 over all pairs of the batch."""
        # the running statistics of what only training needs are not kept
        z, _ = embedding.apply({'params': params}, features, norms(batch['site']), mutable=['batch_stats'])
        values, pair = label_pairs(unit(z), batch['label'], options.temperature)
        return jnp.sum(values) / jnp.maximum(jnp.sum(pair), 1)

    def loss(params, state, batch, key, step):
        image = see(view, key, batch)
        (logits, out), collections = net.apply({'params': params['network'], **state['network']}, image, train=True,
                                               site=batch['site'], mutable=['batch_stats'])
        target = jax.nn.one_hot(batch['label'], logits.shape[-1])
        scalars = {}
        if options.teachers:
            teacher = ms_net.taught(net, params['teachers'], out['map'], batch['site'])
            scalars['teacher'] = jnp.mean(cross_entropy(teacher, target))
            scalars['student'] = ms_net.student_loss(logits, teacher, target)
            value = scalars['teacher'] + jnp.where(step >= options.warm_up, scalars['student'], 0.0)
        else:
            value = scalars['clf'] = jnp.mean(cross_entropy(logits, target))
        if options.alpha:
            scalars['con'] = contrastive(params['embedding'], out['features'], batch)
            value = value + options.alpha * scalars['con']  # Eq 5
        return value, ({**state, 'network': collections}, scalars)

    warm_up = options.warm_up if options.teachers else 0
    return Method(net, init, loss, predictor(net, config), warm_up=warm_up)


def covidnet(config: ConfigDict, mesh: Mesh) -> nn.Module:
    """The config's network, with the adapters and the fields that config.cross_site asks for."""
    options = config.cross_site
    number = sites(config.model.name, config.model.sites)
    fields: dict[str, Any] = {'head_norm': options.head_norm, 'p33': options.p33}
    if options.pool:
        fields['pool'] = options.pool
    compute: dict[str, Any] = {}
    if options.adapter == 'series':
        compute['norm'] = partial(SeriesAdapter, number)
    elif options.adapter == 'parallel':
        compute['adapter'] = partial(SiteConv, sites=number)
    return build_network(config, mesh, fields, **compute)


def check(config: ConfigDict) -> None:
    """UserError as `make`."""
    options = config.cross_site
    name = config.model.name
    network(name)  # that there is one
    if not has(name, 'head_norm'):
        raise UserError(f'cross_site trains a COVID-Net, not {name}: set --config.model.name=COVIDNetRedesign, or another '
                        '--config.method')
    if options.adapter not in ADAPTERS:
        raise UserError(f"--config.cross_site.adapter={options.adapter} must be series, parallel or ''")
    if options.temperature <= 0:
        raise UserError(f'--config.cross_site.temperature={options.temperature} must be above 0')
    for field in ('alpha', 'pool', 'warm_up'):
        if options[field] < 0:
            raise UserError(f'--config.cross_site.{field}={options[field]} must be at least 0')
    if not options.embedding or min(options.embedding) < 1:
        raise UserError(f'--config.cross_site.embedding={tuple(options.embedding)} must be widths of at least one layer')
    if not sites(name, config.model.sites) and (options.adapter or options.teachers or options.head_norm):
        raise UserError(f'{name} has no normalisation by site: set --config.model.name=COVIDNetRedesign')
    if options.teachers and options.head_norm:
        raise UserError('the teachers have no normalisation: set --config.cross_site.head_norm=False')
    if options.teachers and config.eval.select == 'loss':
        raise UserError('the loss of MS-Net has another term after its warm-up: set --config.eval.select to a metric')
