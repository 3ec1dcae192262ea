"""The table of docs/networks.md: parameters, GFLOPs and times of every full-size network.

    python scripts/table_networks.py [NAME ...]

Parameters are of the classifier in the row; GFLOPs (2 per multiplication and addition) are XLA's count of one forward pass,
before any compilation. Times are of this machine: a forward pass and a training step (Adam, float32) of the batch in the row,
medians of 5. Where a paper's volume is too large to time on a laptop, a smaller one is timed, and the row says so.
"""

import os

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import statistics
import sys
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from covid_jax.models import network
from covid_jax.models.compute import Compute
from covid_jax.models.conv import form_for
from covid_jax.runtime.mesh import compiler_options, make_mesh

PLANE, FLAT = {'taps': 1}, (224, 224, 3)
SOLID = (128, 128, 128, 1)  # CMT-CNN's scans
ROWS = [  # name, fields, classes, input, the timed batch
    ('ResNet18', PLANE, 1000, FLAT, (8, *FLAT)),
    ('ResNet50', PLANE, 1000, FLAT, (8, *FLAT)),
    ('ResNeSt50', PLANE, 1000, FLAT, (8, *FLAT)),
    ('VGG16', PLANE, 1000, FLAT, (8, *FLAT)),
    ('VGG19', PLANE, 1000, FLAT, (8, *FLAT)),
    ('DenseNet121', {}, 1000, FLAT, (8, *FLAT)),
    ('DenseNet169', {}, 1000, FLAT, (8, *FLAT)),
    ('EfficientNetB0', PLANE, 1000, FLAT, (8, *FLAT)),
    ('EfficientNetB1', PLANE, 1000, FLAT, (8, *FLAT)),
    ('EfficientNetB4', PLANE, 1000, FLAT, (8, *FLAT)),
    ('CRNet', {}, 2, (224, 224, 1), (8, 224, 224, 1)),
    ('COVIDNet', {}, 2, FLAT, (8, *FLAT)),
    ('COVIDNetRedesign', {'sites': 1}, 2, FLAT, (8, *FLAT)),
    ('ResNet18Hara', {}, 2, (32, 64, 64, 1), (2, 32, 64, 64, 1)),
    ('ResNet50', {}, 2, (128, 256, 256, 1), (2, 16, 64, 64, 1)),
    ('ResNeSt50', {}, 2, (64, 256, 256, 1), (2, 16, 64, 64, 1)),
    ('VGG19', {}, 2, SOLID, (2, 32, 32, 32, 1)),
    ('EfficientNetB4', {}, 2, SOLID, (2, 32, 32, 32, 1)),
]


def cost(name, fields, classes, shape):
    """Parameters, and FLOPs of one forward pass of one image or scan."""
    net = network(name, **fields)(classes=classes)
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0), image)
    parameters = sum(x.size for x in jax.tree.leaves(variables['params']))

    def forward(variables, image):
        return net.apply(variables, image, site=jnp.zeros(1, jnp.int32))[0]

    return parameters, jax.jit(forward).lower(variables, image).cost_analysis()['flops']


def times(name, fields, classes, shape):
    """Seconds of a forward pass and of a training step."""
    net = network(name, **fields)(classes=classes, compute=Compute(form=form_for(jax.default_backend())))
    image, label = jnp.asarray(np.random.default_rng(0).random(shape, np.float32)), jnp.arange(shape[0]) % 2
    variables = jax.jit(net.init)(jax.random.key(0), image)
    state, tx = {k: v for k, v in variables.items() if k != 'params'}, optax.adam(1e-4)
    apply = partial(net.apply, site=jnp.zeros(len(image), jnp.int32))

    def loss(params, state):
        (logits, _), state = apply({'params': params, **state}, image, True, mutable=['batch_stats'],
                                   rngs={'dropout': jax.random.key(1)})
        return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean(), state

    @partial(jax.jit, donate_argnums=(0, 1, 2), compiler_options=compiler_options(make_mesh()))
    def update(params, state, opt_state):
        (_, state), grads = jax.value_and_grad(loss, has_aux=True)(params, state)
        updates, opt_state = tx.update(grads, opt_state)
        return optax.apply_updates(params, updates), state, opt_state

    forward = jax.jit(lambda variables: apply(variables, image)[0])
    once = median(lambda: forward(variables).block_until_ready())
    kept = [variables['params'], state, jax.jit(tx.init)(variables['params'])]

    def step():
        kept[:] = update(*kept)
        jax.block_until_ready(kept)

    return once, median(step)


def median(function, rounds=5):
    seconds = []
    for _ in range(rounds + 1):  # the first compiles
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def main(names):
    print('| network | form | classes | input | parameters | GFLOPs | timed batch | forward ms | training step ms |')
    print('|---|---|---|---|---|---|---|---|---|')
    for name, fields, classes, shape, batch in ROWS:
        if names and name not in names:
            continue
        parameters, flops = cost(name, fields, classes, shape)
        once, step = times(name, fields, classes, batch)
        told = f'{name}, of one site' if 'sites' in fields else name
        cells = [told, '2D' if len(shape) == 3 else '3D', classes, 'x'.join(map(str, shape)), f'{parameters:,}',
                 f'{flops / 1e9:,.1f}', 'x'.join(map(str, batch[:-1])), f'{1000 * once:,.0f}', f'{1000 * step:,.0f}']
        print('|', ' | '.join(map(str, cells)), '|', flush=True)


if __name__ == '__main__':
    main(sys.argv[1:])
