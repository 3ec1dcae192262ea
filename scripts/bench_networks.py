"""Training steps of the networks on a CPU: ours against torch's, in float32 with Adam.

    pip install -e '.[parity]'
    python scripts/bench_networks.py [--rounds=15] [--network=NAME]

torch runs eager, contiguous, with fused Adam: timm's networks in 2D, those of parity_crnet.py and parity_resnet.py else. Both
start from the same weights, with which their logits must agree; dropout is off in both.
Steps take turns in one process, idle threads sleep (OMP_WAIT_POLICY=PASSIVE: torch's would else spin on the cores that
XLA works on), and the ratios are those of the medians, of wall time and of CPU time (which neighbours on the machine
move less). Prints a Markdown table.
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
import parity_crnet
import parity_resnet
import torch
from interleaved import measure
from record_parity import import_timm
from torch.nn import functional as F

from covid_jax.models import network
from covid_jax.models.compute import Compute
from covid_jax.runtime.mesh import compiler_options, make_mesh
from covid_jax.weights import pretrained

RATE, CLASSES = 1e-4, 2
CASES = {  # name: our network and its fields, the batch
    '3D ResNet18': ('ResNet18Hara', {}, (2, 32, 64, 64, 1)),
    '3D ResNeSt50': ('ResNeSt50', {}, (2, 16, 64, 64, 1)),
    'densenet169': ('DenseNet169', {}, (8, 224, 224, 3)),
    'efficientnet_b0': ('EfficientNetB0', {'taps': 1, 'dropout': 0.0, 'drop_connect': 0.0}, (8, 224, 224, 3)),
    'resnet18': ('ResNet18', {'taps': 1}, (8, 224, 224, 3)),
    'vgg16': ('VGG16', {'taps': 1, 'dropout': 0.0}, (8, 224, 224, 3)),
    'crnet': ('CRNet', {}, (8, 224, 224, 1)),
}
VOLUMES = {
    '3D ResNet18': partial(parity_resnet.Network, parity_resnet.Basic, (2, 2, 2, 2), 64, pool=2, classes=CLASSES),
    '3D ResNeSt50': partial(parity_resnet.Network, parity_resnet.SplitBottleneck, (3, 4, 6, 3), 64, stem_width=32,
                            classes=CLASSES),
}


def torch_step(model, image, label):
    """A function of one training step -> loss."""
    image, label = torch.tensor(np.moveaxis(image, -1, 1)).contiguous(), torch.tensor(label)
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), RATE, fused=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(image), label)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def our_step(net, variables, image, label):
    tx = optax.adam(RATE)

    def loss(params, state):
        (logits, _), state = net.apply({'params': params, **state}, image, True, mutable=['batch_stats'])
        return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean(), state

    @partial(jax.jit, donate_argnums=(0, 1, 2), compiler_options=compiler_options(make_mesh()))
    def update(params, state, opt_state):
        (value, state), grads = jax.value_and_grad(loss, has_aux=True)(params, state)
        updates, opt_state = tx.update(grads, opt_state)
        return optax.apply_updates(params, updates), state, opt_state, value

    state = jax.tree.map(jnp.array, dict(variables))
    params = state.pop('params')
    kept = [params, state, tx.init(params)]

    def step():
        *kept[:], value = update(*kept)
        return float(value)

    return step


def both(case, variables):
    """torch's network and our variables, of the same weights."""
    if case.startswith('3D'):
        model = VOLUMES[case]()
    else:
        model = parity_crnet.build(case) if case == 'crnet' else import_timm().create_model(case, num_classes=CLASSES)
    tensors = {name: x.numpy() for name, x in model.state_dict().items()}
    return model, pretrained.convert(variables, tensors, CASES[case][0])[0]


def compare(case, rounds):
    """-> seconds of each round, wall and CPU, {'torch': [...], 'ours': [...]}."""
    name, fields, shape = CASES[case]
    rng = np.random.default_rng(0)
    image, label = rng.random(shape, np.float32), np.arange(shape[0]) % CLASSES
    net = network(name, **fields)(classes=CLASSES, compute=Compute(form='planar'))
    model, variables = both(case, jax.device_get(jax.jit(net.init)(jax.random.key(0), image)))
    with torch.no_grad():
        theirs = model.eval()(torch.tensor(np.moveaxis(image, -1, 1))).numpy()
    np.testing.assert_allclose(jax.jit(net.apply)(variables, image)[0], theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())
    steps = {'torch': torch_step(model, image, label), 'ours': our_step(net, variables, image, label)}
    return measure(steps, rounds)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--network', choices=CASES, action='append')
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    print(f'{cores} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}, jax {jax.__version__}\n')
    print('| network | input | torch ms, median (min) | ours ms, median (min) | ratio of medians | of minima | of CPU time |')
    print('|---|---|---|---|---|---|---|')
    for name in args.network or CASES:
        times = compare(name, args.rounds)
        wall, cpu = ({who: [1000 * t[i] for t in rows] for who, rows in times.items()} for i in (0, 1))
        low, middle = ({who: f(t) for who, t in wall.items()} for f in (min, statistics.median))
        spent = {who: statistics.median(t) for who, t in cpu.items()}
        cells = [f'{middle[who]:.0f} ({low[who]:.0f})' for who in ('torch', 'ours')]
        ratios = [f'{m["ours"] / m["torch"]:.2f}' for m in (middle, low, spent)]
        print('|', ' | '.join([name, 'x'.join(map(str, CASES[name][2][:-1])), *cells, *ratios]), '|', flush=True)
    print(f'\nload after: {os.getloadavg()[0]:.1f}')


if __name__ == '__main__':
    main()
