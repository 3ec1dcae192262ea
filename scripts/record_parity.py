"""Outputs of timm's networks with weights that anyone can draw again, for the suite to compare ours with.

    pip install torch==2.13.0 timm==1.0.31
    python scripts/record_parity.py [NAME ...]

writes tests/parity/NAME.npz: in evaluation the logits and a few numbers of each stage; from one pass in training the
logits, and the first channels' statistics of the batch at each normalisation, the variance as the biased one.
tests/parity/rule.py draws. timm's resnet18 and resnet50 have torchvision's names, and torchvision's weights load into them.
What timm does not have is built by a script beside this one.
"""

import copy
import re
import sys
import types
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np

PARITY = Path(__file__).resolve().parent.parent / 'tests' / 'parity'
# Of each network: `stages`, the modules whose output is sampled, and what is special about it: `image`, the shape of its
# images; `volumes`, the shape that they are cut into; `draw`, what the rule is told about its weights; `unseen`, which
# normalisations' statistics are not kept; `by`, the script beside this one whose build(name) makes it.
RESNET = {'stages': [f'layer{i}' for i in range(1, 5)]}
EFFICIENTNET = {'stages': [f'blocks.{i}' for i in range(7)]}  # with smaller scales nothing of the image is left behind gates
DENSENET = {'stages': [*(f'features.transition{i}' for i in (1, 2, 3)), 'features.norm5'], 'image': (3, 3, 64, 64),
            'unseen': r'denselayer\d+\.norm1$'}  # the transition after it has those statistics
VGG = {'image': (2, 3, 64, 64)}
COVIDNET = {'stages': ['p13', 'p24', 'p36', 'p43'], 'image': (6, 3, 144, 112), 'by': 'parity_covidnet',
            'draw': {'gain': 0.8}}  # sixteen blocks of five convolutions without the ReLU that a gain of 2 is for
NETWORKS = {
    'resnet18': RESNET,
    'resnet50': RESNET,
    'resnest50d': RESNET,
    'efficientnet_b0': EFFICIENTNET | {'draw': {'scale': 2.1}},
    'efficientnet_b4': EFFICIENTNET | {'draw': {'scale': 1.85}},
    'efficientnet_b0_3d': EFFICIENTNET | {'draw': {'scale': 2.4}, 'volumes': (3, 1, 24, 36, 28),
                                          'by': 'parity_efficientnet'},
    'densenet121': DENSENET,
    'densenet169': DENSENET,
    'vgg16': VGG | {'stages': [*(f'features.{k}' for k in (4, 9, 16, 23, 30)), 'pre_logits.act1']},
    'vgg19': VGG | {'stages': [*(f'features.{k}' for k in (4, 9, 18, 27, 36)), 'pre_logits.act1']},
    'crnet': {'stages': ['pool1', 'pool2', 'pool3', 'avgpool'], 'image': (2, 1, 224, 224), 'by': 'parity_crnet'},
    'covidnet': COVIDNET,
    'covidnet_redesign': COVIDNET,
}
CHANNELS = 8  # of each batch normalisation whose statistics are kept


def import_timm():
    """timm imports torchvision, which has no CPU build for this torch: what fails in its import is left out."""
    for part in ('_meta_registrations', '_autograd_registrations'):
        sys.modules[f'torchvision.{part}'] = types.ModuleType(part)
    import timm

    return timm


def build(name, rule):
    import torch

    special = NETWORKS[name]
    net = import_module(special['by']).build(name) if 'by' in special else import_timm().create_model(name)
    draw = partial(rule.draw, **special.get('draw', {}))
    state = {k: v if k.endswith('num_batches_tracked') else torch.from_numpy(draw(k, tuple(v.shape)))
             for k, v in net.state_dict().items()}
    net.load_state_dict(state, strict=True)
    return net


def record(name, rule):
    import torch

    special = NETWORKS[name]
    image = rule.image(special.get('image', rule.IMAGE))
    net, x, kept = build(name, rule), torch.from_numpy(image.reshape(special.get('volumes', image.shape))), {}

    def keep_stage(stage):
        def hook(module, args, output):
            if not net.training:
                kept[f'eval/{stage}'] = rule.sample(output.movedim(1, -1).numpy())
        return hook

    def keep_statistics(key, old):
        def hook(module, args, output):
            if net.training:
                n = args[0].numel() / args[0].shape[1]
                new = module.state_dict()
                mean, var = ((new[k] - 0.9 * old[k]) / 0.1 for k in ('running_mean', 'running_var'))
                kept[f'train/{key}.running_mean'] = mean[:CHANNELS].numpy()
                kept[f'train/{key}.running_var'] = (var * (n - 1) / n)[:CHANNELS].numpy()
        return hook

    for stage in special['stages']:
        net.get_submodule(stage).register_forward_hook(keep_stage(stage))
    for key, module in net.named_modules():
        unseen = 'unseen' in special and re.search(special['unseen'], key)
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and not unseen:
            module.register_forward_hook(keep_statistics(key, copy.deepcopy(module.state_dict())))
    with torch.no_grad():
        kept['eval/logits'] = net.eval()(x).numpy()
        kept['train/logits'] = net.train()(x).numpy()
    kept['parameters'] = sum(p.numel() for p in net.parameters())
    kept['versions'] = f'timm {import_timm().__version__}, torch {torch.__version__}'
    return kept


def main(names):
    sys.path.insert(0, str(PARITY))
    import rule

    for name in names or NETWORKS:
        kept = record(name, rule)
        path = PARITY / f'{name}.npz'
        np.savez_compressed(path, **kept)
        print(f'{path}: {path.stat().st_size // 1024} KB, {kept["versions"]}, '
              f'logits up to {np.abs(kept["eval/logits"]).max():.3g}, {np.abs(kept["train/logits"]).max():.3g}')


if __name__ == '__main__':
    main(sys.argv[1:])
