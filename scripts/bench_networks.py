"""Training steps of the networks on a CPU: ours against torch's, in float32 with Adam.

    pip install torch==2.13.0 timm==1.0.31
    python scripts/bench_networks.py [--rounds=15] [--network=NAME]

torch runs eager, contiguous, with fused Adam: timm's networks in 2D, CRNet of parity_crnet.py, and the 3D ones below. Both
start from the same weights, with which their logits must agree; dropout is off in both.
Steps take turns in one process, idle threads sleep (OMP_WAIT_POLICY=PASSIVE: torch's would else spin on the cores that
XLA works on), and the ratios are those of the medians, of wall time and of CPU time (which neighbours on the machine
move less). Prints a Markdown table.
"""

import os

os.environ.update(OMP_WAIT_POLICY='PASSIVE', GOMP_SPINCOUNT='0', JAX_PLATFORMS='cpu')

import argparse
import statistics
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import parity_crnet
import torch
from record_parity import import_timm
from torch import nn
from torch.nn import functional as F

from covid_jax.models import crnet, network, pretrained
from covid_jax.models.resnest import deep_stem
from covid_jax.runtime.mesh import compiler_options, make_mesh

RATE, CLASSES = 1e-4, 2
CASES = {  # name: our network and its fields, the batch
    '3D ResNet18': ('ResNet18', {'stem_taps': 7, 'depth_strides': (1, 2, 1, 2, 2, 2)}, (2, 32, 64, 64, 1)),
    '3D ResNeSt50': ('ResNeSt50', {}, (2, 16, 64, 64, 1)),
    'densenet169': ('DenseNet169', {}, (8, 224, 224, 3)),
    'efficientnet_b0': ('EfficientNetB0', {'taps': 1, 'dropout': 0.0, 'drop_connect': 0.0}, (8, 224, 224, 3)),
    'resnet18': ('ResNet18', {'taps': 1}, (8, 224, 224, 3)),
    'vgg16': ('VGG16', {'taps': 1, 'dropout': 0.0}, (8, 224, 224, 3)),
    'crnet': ('CRNet', {}, (8, 224, 224, 1)),
}


def conv(features_in, features, taps, strides=(1, 1, 1), **kwargs):
    kwargs = {'bias': False, **kwargs}
    return nn.Conv3d(features_in, features, taps, strides, tuple(k // 2 for k in taps), **kwargs)


class TorchBasic(nn.Module):
    def __init__(self, features_in, features, stride):
        super().__init__()
        strides = (stride,) * 3
        self.conv1, self.bn1 = conv(features_in, features, (3, 3, 3), strides), nn.BatchNorm3d(features)
        self.conv2, self.bn2 = conv(features, features, (3, 3, 3)), nn.BatchNorm3d(features)
        self.reduced = stride > 1 or features_in != features
        if self.reduced:
            self.downsample_conv = conv(features_in, features, (1, 1, 1), strides)
            self.downsample_bn = nn.BatchNorm3d(features)

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (self.downsample_bn(self.downsample_conv(x)) if self.reduced else x))


class TorchSplitAttention(nn.Module):
    def __init__(self, features):
        super().__init__()
        inner = max(features // 2, 32)
        self.conv, self.bn0 = conv(features, 2 * features, (3, 3, 3), groups=2), nn.BatchNorm3d(2 * features)
        self.fc1, self.bn1 = conv(features, inner, (1, 1, 1), bias=True), nn.BatchNorm3d(inner)
        self.fc2 = conv(inner, 2 * features, (1, 1, 1), bias=True)

    def forward(self, x):
        x = F.relu(self.bn0(self.conv(x)))
        splits = x.view(len(x), 2, -1, *x.shape[2:])
        attention = self.fc2(F.relu(self.bn1(self.fc1(splits.sum(1).mean((2, 3, 4), keepdim=True)))))
        return (attention.view(len(x), 2, -1, 1, 1, 1).softmax(1) * splits).sum(1)


class TorchSplitBottleneck(nn.Module):
    def __init__(self, features_in, features, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(features_in, features, (1, 1, 1)), nn.BatchNorm3d(features)
        self.conv2 = TorchSplitAttention(features)
        self.conv3, self.bn3 = conv(features, 4 * features, (1, 1, 1)), nn.BatchNorm3d(4 * features)
        self.stride, self.reduced = stride, stride > 1 or features_in != 4 * features
        if self.reduced:
            self.downsample_conv = conv(features_in, 4 * features, (1, 1, 1))
            self.downsample_bn = nn.BatchNorm3d(4 * features)

    def forward(self, x):
        y = self.conv2(F.relu(self.bn1(self.conv1(x))))
        if self.stride > 1:
            y = F.avg_pool3d(y, 3, self.stride, 1)
        y = self.bn3(self.conv3(y))
        if self.stride > 1:
            x = F.avg_pool3d(x, self.stride, self.stride, ceil_mode=True, count_include_pad=False)
        return F.relu(y + (self.downsample_bn(self.downsample_conv(x)) if self.reduced else x))


class TorchNetwork(nn.Module):
    """The same network as `net`, its modules named as ours are."""

    def __init__(self, net):
        super().__init__()
        deep, depth, width = net.stem is deep_stem, net.depth_strides, net.width
        taps, plane = net.stem_taps or net.taps, net.stem_plane
        self.stem = [(f'stem_conv{i}', f'stem_bn{i}') for i in range(3)] if deep else [('conv1', 'bn1')]
        sizes = [(1, 32), (32, 32), (32, 64)] if deep else [(1, 64)]
        for i, ((name, norm), (a, b)) in enumerate(zip(self.stem, sizes, strict=True)):
            kernel, strides = ((taps, plane, plane), (depth[0], 2, 2)) if i == 0 else ((3, 3, 3), (1, 1, 1))
            self.add_module(name, conv(a, b, kernel, strides))
            self.add_module(norm, nn.BatchNorm3d(b))
        self.pool = nn.MaxPool3d((3 if depth[1] > 1 else 1, 3, 3), (depth[1], 2, 2), (int(depth[1] > 1), 1, 1))
        block, expansion = (TorchSplitBottleneck, 4) if deep else (TorchBasic, 1)
        self.blocks, features_in = [], width
        for i, size in enumerate(net.stage_sizes):
            for j in range(size):
                self.blocks.append(f'layer{i + 1}_{j}')
                self.add_module(self.blocks[-1], block(features_in, width * 2**i, 2 if i > 0 and j == 0 else 1))
                features_in = width * 2**i * expansion
        self.classifier = nn.Linear(features_in, CLASSES)

    def forward(self, x):
        for name, norm in self.stem:
            x = F.relu(getattr(self, norm)(getattr(self, name)(x)))
        x = self.pool(x)
        for name in self.blocks:
            x = getattr(self, name)(x)
        return self.classifier(x.mean((2, 3, 4)))


def torch_network(net, params):
    """torch's network with a copy of our parameters."""
    model, state = TorchNetwork(net), {}
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        *modules, leaf = [p.key for p in path if p.key != 'Dense_0']
        order = {5: (4, 3, 0, 1, 2), 2: (1, 0), 1: (0,)}[x.ndim]
        name = '.'.join([*modules, 'bias' if leaf == 'bias' else 'weight'])
        state[name] = torch.tensor(np.transpose(x, order))
    missing = model.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys and all('running' in k or 'num_batches' in k for k in missing.missing_keys), missing
    return model


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


def both(case, net, variables):
    """torch's network and our variables, of the same weights."""
    if case.startswith('3D'):
        return torch_network(net, variables['params']), variables
    if case == 'crnet':
        model = parity_crnet.build(case)
        names = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}
        state = model.state_dict()

        def pick(path, x):
            *modules, leaf = (p.key for p in path[1:])
            value = state[f'{crnet.torch_name(modules)}.{names[leaf]}'].numpy()
            return value.transpose(2, 3, 1, 0)[None] if x.ndim == 5 else value.T

        return model, jax.tree_util.tree_map_with_path(pick, variables)
    model = import_timm().create_model(case, num_classes=CLASSES)
    tensors = {name: x.numpy() for name, x in model.state_dict().items()}
    return model, pretrained.convert(variables, tensors, CASES[case][0])[0]


def compare(case, rounds):
    """-> seconds of each round, wall and CPU, {'torch': [...], 'ours': [...]}."""
    name, fields, shape = CASES[case]
    rng = np.random.default_rng(0)
    image, label = rng.random(shape, np.float32), np.arange(shape[0]) % CLASSES
    net = network(name, **fields)(classes=CLASSES, conv_form='planar')
    model, variables = both(case, net, jax.device_get(jax.jit(net.init)(jax.random.key(0), image)))
    with torch.no_grad():
        theirs = model.eval()(torch.tensor(np.moveaxis(image, -1, 1))).numpy()
    np.testing.assert_allclose(jax.jit(net.apply)(variables, image)[0], theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())
    steps = {'torch': torch_step(model, image, label), 'ours': our_step(net, variables, image, label)}
    times = {who: [] for who in steps}
    for i in range(rounds + 2):
        for who, step in steps.items():
            start = time.perf_counter(), time.process_time()
            step()
            if i >= 2:
                times[who].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return times


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
