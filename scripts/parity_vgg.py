"""VGG-19 in 3D in torch, for scripts/record_parity.py: no library has it.

An eighth of the width: configuration E with kernels 3x3x3 and pools 2x2x2. Names are timm's, with another dimension.
"""

from collections import OrderedDict

from torch import nn

WIDTH, DENSE, MAP, CLASSES = 8, 64, (1, 1, 2), 1000  # the last map, of volumes of 32 x 32 x 64


def build(name):
    layers, channels = [], 1
    for features, count in ((WIDTH, 2), (2 * WIDTH, 2), (4 * WIDTH, 4), (8 * WIDTH, 4), (8 * WIDTH, 4)):
        for _ in range(count):
            layers += [nn.Conv3d(channels, features, 3, padding=1), nn.ReLU()]
            channels = features
        layers.append(nn.MaxPool3d(2))
    dense = OrderedDict(flatten=nn.Flatten(), fc1=nn.Linear(channels * MAP[0] * MAP[1] * MAP[2], DENSE), act1=nn.ReLU(),
                        fc2=nn.Linear(DENSE, DENSE), act2=nn.ReLU())
    head = nn.Sequential(OrderedDict(fc=nn.Linear(DENSE, CLASSES)))
    return nn.Sequential(OrderedDict(features=nn.Sequential(*layers), pre_logits=nn.Sequential(dense), head=head))
