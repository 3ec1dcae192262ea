"""COVID-Net and its redesign in torch, for scripts/record_parity.py: written out block by block from the papers' figures.

Narrow ones, an eighth of the width. Rows alternate between two sites; a batch normalisation has a row of parameters and of
statistics for each, and sees the rows of a site alone, one site after the other.
"""

import torch
from torch import nn
from torch.nn import functional as F

WIDTH = 8
MAP = (4, 3)  # the last one's plane, of images of 144 x 112


def pepx(channels, features):
    half, most = channels // 2, 3 * channels // 4
    return nn.Sequential(nn.Conv2d(channels, half, 1), nn.Conv2d(half, most, 1),
                         nn.Conv2d(most, most, 3, padding=1, groups=most),
                         nn.Conv2d(most, half, 1), nn.Conv2d(half, features, 1))


class SiteNorm(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(2, features)), nn.Parameter(torch.zeros(2, features))
        self.register_buffer('running_mean', torch.zeros(2, features))
        self.register_buffer('running_var', torch.ones(2, features))

    def forward(self, x):
        y = torch.empty_like(x)
        for site in range(2):
            y[site::2] = F.batch_norm(x[site::2], self.running_mean[site], self.running_var[site], self.weight[site],
                                      self.bias[site], self.training)
        return y


class COVIDNet(nn.Module):
    def __init__(self, redesign, classes=1000):
        super().__init__()
        self.redesign = redesign
        a, b, c, d, e = (WIDTH * n for n in (1, 4, 8, 16, 32))
        self.conv1 = nn.Conv2d(3, a, 7, stride=2, padding=3)
        self.c1, self.c2, self.c3, self.c4 = (nn.Conv2d(n, m, 1) for n, m in ((a, b), (b, c), (c, d), (d, e)))
        self.p11, self.p12, self.p13 = pepx(a, b), pepx(b, b), pepx(b, b)
        self.p21, self.p22, self.p23, self.p24 = pepx(b, c), pepx(c, c), pepx(c, c), pepx(c, c)
        self.p31, self.p32, self.p33 = pepx(c, d), pepx(d, d), pepx(d, d)
        self.p34, self.p35, self.p36 = pepx(d, d), pepx(d, d), pepx(d, d)
        self.p41, self.p42, self.p43 = pepx(d, e), pepx(e, e), pepx(e, e)
        if redesign:
            for name, features in (('conv1', a), ('c1', b), ('c2', c), ('c3', d), ('c4', e)):
                self.add_module(f'{name}_norm', SiteNorm(features))
        self.fc1 = nn.Linear(e * (4 if redesign else MAP[0] * MAP[1]), 16 * WIDTH)
        self.fc2 = nn.Linear(16 * WIDTH, 4 * WIDTH)
        self.classifier = nn.Linear(4 * WIDTH, classes)

    def upper(self, name, x):
        y = getattr(self, name)(x)
        if not self.redesign:
            return F.relu(y) if name == 'conv1' else y
        return F.relu(getattr(self, f'{name}_norm')(y))

    def forward(self, x):
        def half(y):
            return F.max_pool2d(y, 2)

        x = half(self.upper('conv1', x))
        c1 = self.upper('c1', x)
        p11 = self.p11(x)
        p12 = self.p12(p11 + c1)
        p13 = self.p13(p11 + p12 + c1)
        c2 = half(self.upper('c2', p11 + p12 + p13 + c1))
        p21 = self.p21(half(p11) + half(p12) + half(p13) + half(c1))
        p22 = self.p22(p21 + c2)
        p23 = self.p23(p21 + p22 + c2)
        p24 = self.p24(p21 + p22 + p23 + c2)
        c3 = half(self.upper('c3', p21 + p22 + p23 + p24 + c2))
        p31 = self.p31(half(p21) + half(p22) + half(p23) + half(p24) + half(c2))
        p32 = self.p32(p31 + c3)
        p33 = self.p33(p31 + p32 + c3)
        p34 = self.p34(p31 + p32 + p33 + c3)
        p35 = self.p35(p31 + p32 + p33 + p34 + c3)
        p36 = self.p36(p31 + p32 + p33 + p34 + p35 + c3)
        c4 = half(self.upper('c4', p31 + p32 + p33 + p34 + p35 + p36 + c3))
        p41 = self.p41(half(p31) + half(p32) + half(p33) + half(p34) + half(p35) + half(p36) + half(c3))
        p42 = self.p42(p41 + c4)
        p43 = self.p43(p41 + p42 + c4)
        last = F.adaptive_avg_pool2d(p43, 2) if self.redesign else p41 + p42 + p43 + c4
        return self.classifier(F.relu(self.fc2(F.relu(self.fc1(last.flatten(1))))))


def build(name):
    return COVIDNet(redesign=name == 'covidnet_redesign')
