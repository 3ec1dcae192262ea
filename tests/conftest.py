"""The suite runs on 8 host devices, keeps its compilations in a cache, and reads real data only where it is at hand. A test that does
not run the real command prepares scans in its own process and draws no plots, unless it is of those (as_for_users)."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# A program of the suite runs a few times: to optimise its machine code takes longer than that saves.
QUICK = '--xla_backend_optimization_level=0'
os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {QUICK} --xla_force_host_platform_device_count=8'
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(ROOT / '.cache' / 'xla'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.3')

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from ml_collections import config_flags  # noqa: E402, F401
from small_scans import hasten  # noqa: E402


@pytest.fixture(autouse=True, scope='session')
def hastened():
    """Tests of something else neither start processes that prepare scans nor draw plots: what users have instead."""
    with pytest.MonkeyPatch.context() as patch:
        yield hasten(patch)


@pytest.fixture
def as_for_users(hastened, monkeypatch):
    """Scans are prepared by processes, and plots are drawn."""
    for (module, name), own in hastened.items():
        monkeypatch.setattr(module, name, own)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(scope='session')
def root():
    """The project's folder."""
    return ROOT


@pytest.fixture
def cmc_config():
    """configs/cmc.py, shrunk to what a test trains in seconds."""
    return small_config()


def small_config(arg=''):
    """A row of configs/cmc.py with a tiny network, on 32 phantoms of a few voxels."""
    import runpy

    c = runpy.run_path(str(ROOT / 'configs' / 'cmc.py'))['get_config'](arg)
    with c.unlocked():
        c.data.phantom.update(train=16, val=8, test=8)
        c.data.workers = 1
        c.prep.size = (8, 16, 16)
        c.views.depth = 6
        c.cmc.projection = 8
        c.model.name = '_ResNetTiny'
        c.train.update(epochs=4.0, batch=8)
        c.eval.tta = 2
    return c


def single_image_config(epochs):
    """The baseline of small_config on images of 16 x 16, answered without augmentation: what learns the fastest."""
    c = small_config('baseline,size=small')
    with c.unlocked():
        c.prep.size = (1, 16, 16)
        c.eval.tta = 0
        c.train.update(epochs=epochs, lr=1e-2)
    return c


def cmt_config(network='_ResNetTiny', **options):
    """CMT-CNN on four images of 32 x 32 a batch, whose views are the images themselves."""
    return image_config('cmt', network, 4, {'latent': 8, **options})


def image_config(method, network, batch, options):
    """A method with these options on images of 32 x 32, so many a batch, that are seen as they are."""
    from covid_jax.methods import METHODS

    c = small_config('baseline,size=small')
    with c.unlocked():
        del c['supervised']
        c.method = method
        c[method] = {**METHODS[method].DEFAULTS, **options}
        c.prep.size = (1, 32, 32)
        c.views.update(name='none', depth=0)
        c.model.name = network
        c.train.batch = batch
        c.eval.tta = 0
    return c


def cross_site_config(row='ours', **options):
    """A row of configs/cross_site.py with a tiny network, on eight images of 32 x 32 of two sites a batch, seen as they are."""
    import runpy

    c = runpy.run_path(str(ROOT / 'configs' / 'cross_site.py'))['get_config'](f'{row},size=small')
    with c.unlocked():
        c.data.phantom.update(train=16, val=8, test=8)
        c.data.workers = 1
        c.prep.update(size=(1, 32, 32), keep_aspect=False)
        c.views.update(name='none', plane=0)
        c.model.name = '_COVIDNetTiny' if c.model.name == 'COVIDNetSmall' else '_COVIDNetRedesignTiny'
        c.cross_site.update(embedding=(16, 8), **options)
        c.train.update(batch=8, epochs=2.0)
    return c


def moco_config(network='_ResNetTiny', **options):
    """Momentum contrast on eight images of 32 x 32 a batch, whose views are the images themselves, in groups of two."""
    return image_config('moco', network, 8, {'queue': 24, 'projection': 8, **options})


def rubik_config(**options):
    """Rubik's cube Pro on two volumes of 8 x 24 x 24 a batch, whose views are the volumes themselves."""
    c = small_config()
    with c.unlocked():
        c.method = 'rubik'
        c.rubik = {'gap': (1, 2, 2), **options}
        c.prep.size = (8, 24, 24)
        c.views.update(name='none', depth=0)
        c.model.name = '_ResNetTiny'
        c.train.batch = 2
    return c


def assert_refused(config, change, message):
    """That the method of a config, with these fields {'section.field': value} changed, is a UserError which says so."""

    from covid_jax import UserError, methods
    from covid_jax.config import put
    from covid_jax.runtime.mesh import make_mesh

    with config.unlocked():
        for name, value in change.items():
            put(config, name, value)
    with pytest.raises(UserError, match=message):
        methods.make(config, make_mesh(jax.devices()[:1]))
