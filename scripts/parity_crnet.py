"""CRNet in torch, written after the paper's listing alone: what covid_jax/models/crnet.py is compared with.

No implementation was released. scripts/record_parity.py builds this one.
"""


def build(name):
    import torch
    from torch import nn

    class CRNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(1, 32, 7, padding='same')
            self.bn1 = nn.BatchNorm2d(32)
            self.conv2 = nn.Conv2d(32, 64, 7, padding='same')
            self.conv3 = nn.Conv2d(64, 128, 7, padding='same')
            self.pool1, self.pool2, self.pool3 = (nn.MaxPool2d(3, stride=2) for _ in range(3))
            self.avgpool = nn.AvgPool2d(2, stride=2)
            self.fc = nn.Linear(13 * 13 * 128, 2)

        def forward(self, x):
            x = self.pool1(torch.relu(self.bn1(self.conv1(x))))
            x = self.pool2(torch.relu(self.conv2(x)))
            x = self.pool3(torch.relu(self.conv3(x)))
            return self.fc(torch.flatten(self.avgpool(x), 1))

    return CRNet()
