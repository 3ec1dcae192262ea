"""Outputs of timm's networks with weights that anyone can draw again, for the suite to compare ours with.

    pip install -e '.[parity]'
    python scripts/record_parity.py [NAME ...]

writes tests/parity/NAME.npz: in evaluation the logits and a few numbers of each stage; from one pass in training the
logits, and a few channels' statistics of the batch at each normalisation, the variance as the biased one.
tests/parity/rule.py draws. timm's resnet18 and resnet50 have torchvision's names, and torchvision's weights load into them.
What timm does not have is built by a script beside this one.
"""

import copy
import sys
import types
from importlib import import_module
from pathlib import Path

import numpy as np

PARITY = Path(__file__).resolve().parent.parent / 'tests' / 'parity'
STAGES = {  # the modules whose output is sampled
    **dict.fromkeys(('resnet18', 'resnet50', 'resnest50d', 'resnet18_3d', 'resnest14_3d'), [f'layer{i}' for i in range(1, 5)]),
    **dict.fromkeys(('efficientnet_b0', 'efficientnet_b1', 'efficientnet_b4', 'efficientnet_b0_3d'), [f'blocks.{i}' for i in range(7)]),
    **dict.fromkeys(('densenet121', 'densenet169'), [*(f'features.transition{i}' for i in (1, 2, 3)), 'features.norm5']),
    'vgg16': [*(f'features.{k}' for k in (2, 7, 14, 21, 28, 30)), 'pre_logits.act1'],
    'vgg19': [*(f'features.{k}' for k in (2, 7, 16, 25, 34, 36)), 'pre_logits.act1'],
    'vgg19_3d': [*(f'features.{k}' for k in (2, 7, 16, 25, 34, 36)), 'pre_logits.act1'],
    'crnet': ['bn1', 'conv2', 'pool3'],
    **dict.fromkeys(('covidnet', 'covidnet_redesign'), ['p13', 'p24', 'p36', 'p43']),
}
BUILDERS = {  # what timm does not have
    'resnet18_3d': 'parity_resnet', 'resnest14_3d': 'parity_resnet', 'efficientnet_b0_3d': 'parity_efficientnet',
    'vgg19_3d': 'parity_vgg', 'crnet': 'parity_crnet', 'covidnet': 'parity_covidnet', 'covidnet_redesign': 'parity_covidnet',
}


def import_timm():
    """timm imports torchvision, which has no CPU build for this torch: what fails in its import is left out."""
    for part in ('_meta_registrations', '_autograd_registrations'):
        sys.modules[f'torchvision.{part}'] = types.ModuleType(part)
    import timm

    return timm


def build(name, rule):
    import torch

    net = import_module(BUILDERS[name]).build(name) if name in BUILDERS else import_timm().create_model(name)
    state = {k: v if k.endswith('num_batches_tracked') else torch.from_numpy(rule.draw(k, tuple(v.shape), name))
             for k, v in net.state_dict().items()}
    net.load_state_dict(state, strict=True)
    return net


def record(name, rule):
    import torch

    net, x, kept, seen = build(name, rule), torch.from_numpy(rule.image(name)), {}, {}

    def keep_stage(stage):
        def hook(module, args, output):
            if not net.training:
                kept[f'eval/{stage}'] = rule.sample(output.movedim(1, -1).numpy())
        return hook

    def keep_statistics(key, old):
        def hook(module, args, output):
            if net.training:
                new = module.state_dict()
                mean, var = ((new[k] - 0.9 * old[k]) / 0.1 for k in ('running_mean', 'running_var'))
                n = args[0].numel() / mean.numel()
                seen[key] = [rule.sample(s, rule.CHANNELS) for s in (mean.numpy(), (var * (n - 1) / n).numpy())]
        return hook

    for stage in STAGES[name]:
        net.get_submodule(stage).register_forward_hook(keep_stage(stage))
    for key, module in net.named_modules():
        if 'running_mean' in module._buffers:
            module.register_forward_hook(keep_statistics(key, copy.deepcopy(module.state_dict())))
    with torch.no_grad():
        kept['eval/logits'] = net.eval()(x).numpy()
        kept['train/logits'] = net.train()(x).numpy()
    kept['train/modules'] = np.array([*seen], str)
    kept['train/statistics'] = np.array([*seen.values()], np.float32).reshape(-1, 2, rule.CHANNELS)
    kept['parameters'] = sum(p.numel() for p in net.parameters())
    kept['versions'] = f'timm {import_timm().__version__}, torch {torch.__version__}'
    return kept


def main(names):
    sys.path.insert(0, str(PARITY))
    import rule

    for name in names or STAGES:
        kept = record(name, rule)
        path = PARITY / f'{name}.npz'
        np.savez_compressed(path, **kept)
        print(f'{path}: {path.stat().st_size // 1024} KB, {kept["versions"]}, '
              f'logits up to {np.abs(kept["eval/logits"]).max():.3g}, {np.abs(kept["train/logits"]).max():.3g}')


if __name__ == '__main__':
    main(sys.argv[1:])
