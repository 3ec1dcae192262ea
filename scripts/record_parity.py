"""Outputs of timm's networks with weights that anyone can draw again, for the suite to compare ours with.

    pip install torch==2.13.0 timm==1.0.31
    python scripts/record_parity.py [NAME ...]

writes tests/parity/NAME.npz: in evaluation the logits and a few numbers of each stage; from one pass in training the
logits, and the first channels' statistics of the batch at each normalisation, the variance as the biased one.
tests/parity/rule.py draws. timm's resnet18 and resnet50 have torchvision's names, and torchvision's weights load into them.
"""

import copy
import re
import sys
import types
from pathlib import Path

import numpy as np

PARITY = Path(__file__).resolve().parent.parent / 'tests' / 'parity'
NAMES = ('resnet18', 'resnet50', 'resnest50d', 'densenet121', 'densenet169')
DENSE = 'densenet121', 'densenet169'
IMAGES = dict.fromkeys(DENSE, (3, 3, 64, 64))  # the rest: the rule's own
STAGES = dict.fromkeys(DENSE, [*(f'features.transition{i}' for i in (1, 2, 3)), 'features.norm5'])  # the rest: layer1 to 4
CHANNELS = 8  # of each batch normalisation whose statistics are kept


def import_timm():
    """timm imports torchvision, which has no CPU build for this torch: what fails in its import is left out."""
    for part in ('_meta_registrations', '_autograd_registrations'):
        sys.modules[f'torchvision.{part}'] = types.ModuleType(part)
    import timm

    return timm


def build(name, rule):
    import torch

    net = import_timm().create_model(name)
    state = {k: v if k.endswith('num_batches_tracked') else torch.from_numpy(rule.draw(k, tuple(v.shape)))
             for k, v in net.state_dict().items()}
    net.load_state_dict(state, strict=True)
    return net


def record(name, rule):
    import torch

    net, x, kept = build(name, rule), torch.from_numpy(rule.image(IMAGES.get(name, rule.IMAGE))), {}

    def keep_stage(stage):
        def hook(module, args, output):
            if not net.training:
                kept[f'eval/{stage}'] = rule.sample(output.permute(0, 2, 3, 1).numpy())
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

    for stage in STAGES.get(name, [f'layer{i}' for i in range(1, 5)]):
        net.get_submodule(stage).register_forward_hook(keep_stage(stage))
    for key, module in net.named_modules():
        seen_again = re.search(r'denselayer\d+\.norm1$', key)  # the transition after it has those statistics
        if isinstance(module, torch.nn.BatchNorm2d) and not seen_again:
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

    for name in names or NAMES:
        kept = record(name, rule)
        path = PARITY / f'{name}.npz'
        np.savez_compressed(path, **kept)
        print(f'{path}: {path.stat().st_size // 1024} KB, {kept["versions"]}, '
              f'logits up to {np.abs(kept["eval/logits"]).max():.3g}, {np.abs(kept["train/logits"]).max():.3g}')


if __name__ == '__main__':
    main(sys.argv[1:])
