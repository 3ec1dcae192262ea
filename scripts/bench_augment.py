"""The views of CMT-CNN on a CPU: next to the training step that they feed, and against MONAI's transforms.

    pip install torch monai
    python scripts/bench_augment.py [--rounds=15] [--size=1x96x96]

For each size: two views of every scan of a batch, as a training step draws them; that step itself, of ResNet14Small on those
views, with Adam, in float32; and the same law in MONAI, one view after another, where torch.poisson is the noise and a
histogram shift of four points the curve. MONAI's windows of shuffling are as many as cover 0.83 of a plane. It computes only the
operations that a view has; ours, under vmap, computes all seven.
The three take turns in one process, idle threads sleep (OMP_WAIT_POLICY=PASSIVE), and the ratios are those of the medians, of
wall time and of CPU time. Prints a Markdown table.
"""

import os

os.environ.update(OMP_WAIT_POLICY='PASSIVE', GOMP_SPINCOUNT='0', JAX_PLATFORMS='cpu')

import argparse
import statistics
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from interleaved import measure

from covid_jax.augment.views import train_view
from covid_jax.models import network
from covid_jax.models.compute import Compute
from covid_jax.runtime.mesh import compiler_options, make_mesh

try:
    import torch
    from monai import transforms
except ImportError:
    torch = None

SIZES = {'1x96x96': (16, 1, 96, 96), '1x224x224': (16, 1, 224, 224), '24x48x48': (8, 24, 48, 48)}  # batch, depth, height, width
COVERED = 0.83  # of the pixels, by the windows that are shuffled


def our_views(scans):
    """A function that makes two views of every scan, rows 2k and 2k + 1 those of scan k."""
    draw = jax.jit(jax.vmap(train_view('cmt')))
    scans = jnp.repeat(scans, 2, 0)
    keys = iter(lambda: jax.random.key(np.random.default_rng().integers(2**31)), None)
    split = jax.jit(jax.random.split, static_argnums=1)
    return lambda: draw(split(next(keys), len(scans)), scans).block_until_ready()


def our_step(views):
    """A function of one training step on these views."""
    taps = {'taps': 1} if views.shape[1] == 1 else {}
    net = network('ResNet14Small', **taps)(classes=2, compute=Compute(form='planar'))
    label = jnp.arange(len(views)) // 2 % 2
    tx = optax.adam(1e-4)

    def loss(params, state):
        (logits, _), state = net.apply({'params': params, **state}, views, True, mutable=['batch_stats'])
        return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean(), state

    @partial(jax.jit, donate_argnums=(0, 1, 2), compiler_options=compiler_options(make_mesh()))
    def update(params, state, opt_state):
        (value, state), grads = jax.value_and_grad(loss, has_aux=True)(params, state)
        updates, opt_state = tx.update(grads, opt_state)
        return optax.apply_updates(params, updates), state, opt_state, value

    state = dict(jax.jit(net.init)(jax.random.key(0), views[:1]))
    params = state.pop('params')
    kept = [params, state, tx.init(params)]

    def step():
        *kept[:], value = update(*kept)
        return float(value)

    return step


def monai_views(scans):
    """The same law by MONAI, scan by scan, view by view."""
    _, depth, height, width, _ = scans.shape
    scans = torch.tensor(np.moveaxis(np.array(scans), -1, 1))
    low, high = (depth, height // 6, width // 6), (depth, height // 3, width // 3)
    kept, most = (depth, 3 * height // 7, 3 * width // 7), (depth, 4 * height // 7, 4 * width // 7)
    longest = height // 10
    holes = round(-np.log(1 - COVERED) * height * width / ((1 + longest) / 2)**2)
    rng = np.random.default_rng(0)

    def noise(x):
        photons = np.exp(rng.uniform(np.log(30), np.log(255)))
        return torch.poisson(x * photons).div(photons).clip(0, 1)

    families = (
        (transforms.RandRotate90(1, 3, (1, 2)),
         lambda x: torch.flip(x, (int(rng.integers(2, 4)),))),
        (transforms.RandHistogramShift(4, 1),
         transforms.RandCoarseShuffle(holes, (depth, 1, 1), None, (depth, longest, longest), 1),
         noise),
        (transforms.RandCoarseDropout(1, low, True, 0.5, 5, high, 1),
         transforms.RandCoarseDropout(1, kept, False, 0.5, 5, most, 1)),
    )

    def view(x):
        chosen = rng.integers(1, 8)
        for bit, family in enumerate(families):
            if chosen >> bit & 1:
                x = family[rng.integers(len(family))](x)
        return torch.as_tensor(x)

    return lambda: torch.stack([view(x) for x in scans for _ in range(2)])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--size', choices=SIZES, action='append')
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    if torch is None:
        print('torch or monai is missing, so MONAI is left out: pip install torch monai\n')
    else:
        torch.set_num_threads(cores)
    print(f'{cores} cores, load {os.getloadavg()[0]:.1f}, jax {jax.__version__}\n')
    print('| scans | views ms, median (min) | step ms | MONAI ms | views / step: of medians, of CPU time | views / MONAI |')
    print('|---|---|---|---|---|---|')
    for size in args.size or SIZES:
        scans = jnp.array(np.random.default_rng(0).integers(0, 256, (*SIZES[size], 1)) / np.float32(255))
        views = our_views(scans)
        runs = {'views': views, 'step': our_step(views())}
        if torch is not None:
            runs['monai'] = monai_views(scans)
        times = measure(runs, args.rounds)
        wall, cpu = ({who: [1000 * t[i] for t in rows] for who, rows in times.items()} for i in (0, 1))
        middle, spent = ({who: statistics.median(t) for who, t in of.items()} for of in (wall, cpu))
        cells = [f'{middle[who]:.1f} ({min(wall[who]):.1f})' if who in wall else '-' for who in ('views', 'step', 'monai')]
        for other in ('step', 'monai'):
            ratios = [f'{of["views"] / of[other]:.3f}' for of in (middle, spent) if other in of]
            cells.append(', '.join(ratios) or '-')
        print('|', ' | '.join([f'{SIZES[size][0]} of {size}', *cells]), '|', flush=True)
    print(f'\nload after: {os.getloadavg()[0]:.1f}')


if __name__ == '__main__':
    main()
