"""EfficientNet in 3D for scripts/record_parity.py, from torch's own layers and the paper's Table 1: no library has it.

A narrow and shallow B0 (half the width, 0.6 of the blocks): every kernel, stride, expansion and both kinds of block are
those of B0. Names are timm's, with another dimension.
"""

# kernel, stride, expansion, features, blocks
STAGES = ((3, 1, 1, 8, 1), (3, 2, 6, 16, 2), (5, 2, 6, 24, 2), (3, 2, 6, 40, 2), (5, 1, 6, 56, 2), (5, 2, 6, 96, 3),
          (3, 1, 6, 160, 1))
STEM, HEAD, CLASSES = 16, 640, 1000


def build(name):
    """The network, in training mode, without dropout."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    def conv(width, out, k=1, stride=1, groups=1, bias=False):
        return nn.Conv3d(width, out, k, stride, padding=(k - 1) // 2, groups=groups, bias=bias)

    class Gate(nn.Module):
        def __init__(self, width, inner):
            super().__init__()
            self.conv_reduce, self.conv_expand = conv(width, inner, bias=True), conv(inner, width, bias=True)

        def forward(self, x):
            means = F.adaptive_avg_pool3d(x, 1)
            return torch.sigmoid(self.conv_expand(F.silu(self.conv_reduce(means)))) * x

    class Plain(nn.Module):
        """A block that does not expand."""

        def __init__(self, width, out, k, stride):
            super().__init__()
            self.conv_dw, self.bn1 = conv(width, width, k, stride, groups=width), nn.BatchNorm3d(width)
            self.se = Gate(width, width // 4)
            self.conv_pw, self.bn2 = conv(width, out), nn.BatchNorm3d(out)
            self.residual = stride == 1 and width == out

        def forward(self, x):
            y = self.bn2(self.conv_pw(self.se(F.silu(self.bn1(self.conv_dw(x))))))
            return y + x if self.residual else y

    class Inverted(nn.Module):
        def __init__(self, width, out, k, stride, expansion):
            super().__init__()
            wide = width * expansion
            self.conv_pw, self.bn1 = conv(width, wide), nn.BatchNorm3d(wide)
            self.conv_dw, self.bn2 = conv(wide, wide, k, stride, groups=wide), nn.BatchNorm3d(wide)
            self.se = Gate(wide, width // 4)
            self.conv_pwl, self.bn3 = conv(wide, out), nn.BatchNorm3d(out)
            self.residual = stride == 1 and width == out

        def forward(self, x):
            y = F.silu(self.bn2(self.conv_dw(F.silu(self.bn1(self.conv_pw(x))))))
            y = self.bn3(self.conv_pwl(self.se(y)))
            return y + x if self.residual else y

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv_stem, self.bn1 = conv(1, STEM, 3, 2), nn.BatchNorm3d(STEM)
            stages, width = [], STEM
            for k, stride, expansion, out, count in STAGES:
                blocks = []
                for j in range(count):
                    s = 1 if j else stride
                    blocks.append(Plain(width, out, k, s) if expansion == 1 else Inverted(width, out, k, s, expansion))
                    width = out
                stages.append(nn.Sequential(*blocks))
            self.blocks = nn.Sequential(*stages)
            self.conv_head, self.bn2 = conv(width, HEAD), nn.BatchNorm3d(HEAD)
            self.classifier = nn.Linear(HEAD, CLASSES)

        def forward(self, x):
            x = self.blocks(F.silu(self.bn1(self.conv_stem(x))))
            return self.classifier(F.silu(self.bn2(self.conv_head(x))).mean((2, 3, 4)))

    return Net()
