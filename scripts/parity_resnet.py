"""ResNet and ResNeSt in 3D, in torch, for scripts/record_parity.py and bench_networks.py: no library has them.

Written out from the papers with torch's own layers: every 3x3 a 3x3x3, the stride on it; in ResNeSt radix 2, cardinality 1, deep
stem, the stride as an average pool after the split attention. Names are timm's, with another dimension.
"""

from torch import nn
from torch.nn import functional as F


def conv(features_in, features, k=1, strides=1, groups=1, bias=False):
    kernel = (k, k, k) if isinstance(k, int) else k
    return nn.Conv3d(features_in, features, kernel, strides, tuple(n // 2 for n in kernel), groups=groups, bias=bias)


class Basic(nn.Module):
    expansion = 1

    def __init__(self, features_in, features, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(features_in, features, 3, stride), nn.BatchNorm3d(features)
        self.conv2, self.bn2 = conv(features, features, 3), nn.BatchNorm3d(features)
        self.downsample = None
        if stride > 1 or features_in != features:
            self.downsample = nn.Sequential(conv(features_in, features, 1, stride), nn.BatchNorm3d(features))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (self.downsample(x) if self.downsample else x))


class SplitAttention(nn.Module):
    def __init__(self, features):
        super().__init__()
        inner = max(features // 2, 32)
        self.conv, self.bn0 = conv(features, 2 * features, 3, groups=2), nn.BatchNorm3d(2 * features)
        self.fc1, self.bn1 = conv(features, inner, bias=True), nn.BatchNorm3d(inner)
        self.fc2 = conv(inner, 2 * features, bias=True)

    def forward(self, x):
        x = F.relu(self.bn0(self.conv(x)))
        splits = x.view(len(x), 2, -1, *x.shape[2:])
        attention = self.fc2(F.relu(self.bn1(self.fc1(splits.sum(1).mean((2, 3, 4), keepdim=True)))))
        return (attention.view(len(x), 2, -1, 1, 1, 1).softmax(1) * splits).sum(1)


class SplitBottleneck(nn.Module):
    expansion = 4

    def __init__(self, features_in, features, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(features_in, features), nn.BatchNorm3d(features)
        self.conv2 = SplitAttention(features)
        self.pool = nn.AvgPool3d(3, stride, 1) if stride > 1 else nn.Identity()
        self.conv3, self.bn3 = conv(features, 4 * features), nn.BatchNorm3d(4 * features)
        self.downsample = None
        if stride > 1 or features_in != 4 * features:
            pool = nn.AvgPool3d(stride, stride, ceil_mode=True, count_include_pad=False)
            self.downsample = nn.Sequential(pool if stride > 1 else nn.Identity(), conv(features_in, 4 * features),
                                            nn.BatchNorm3d(4 * features))

    def forward(self, x):
        y = self.bn3(self.conv3(self.pool(self.conv2(F.relu(self.bn1(self.conv1(x)))))))
        return F.relu(y + (self.downsample(x) if self.downsample else x))


class Network(nn.Module):
    """stem_width None: as wide as the first stage, 7x7x7; else the deep stem, of that width and twice that.
    pool: its stride in depth; the stem's is 1."""

    def __init__(self, block, sizes, width, pool=1, stem_width=None, classes=1000):
        super().__init__()
        w, features = stem_width, width if stem_width is None else 2 * stem_width
        self.conv1 = conv(1, width, 7, (1, 2, 2)) if w is None else nn.Sequential(
            conv(1, w, 3, (1, 2, 2)), nn.BatchNorm3d(w), nn.ReLU(), conv(w, w, 3), nn.BatchNorm3d(w), nn.ReLU(), conv(w, 2 * w, 3))
        self.bn1 = nn.BatchNorm3d(features)
        self.pool = nn.MaxPool3d((3 if pool > 1 else 1, 3, 3), (pool, 2, 2), (int(pool > 1), 1, 1))
        for i, size in enumerate(sizes):
            blocks = []
            for j in range(size):
                blocks.append(block(features, width * 2**i, 2 if i > 0 and j == 0 else 1))
                features = width * 2**i * block.expansion
            self.add_module(f'layer{i + 1}', nn.Sequential(*blocks))
        self.fc = nn.Linear(features, classes)

    def forward(self, x):
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return self.fc(x.mean((2, 3, 4)))


def build(name):
    """A narrow one."""
    if name == 'resnet18_3d':
        return Network(Basic, (2, 2, 2, 2), 16, pool=2)
    return Network(SplitBottleneck, (1, 1, 1, 1), 12, stem_width=8)
