"""Wide residual networks as semi-supervised learning uses them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sslrun.contracts import DataSpec, UserError
from sslrun.encoders.cnn import MapEncoder, image_shape, initialise

SLOPE = 0.1  # of the leaky ReLU on negative inputs


def batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, momentum=0.001)


class PreActivation(nn.Module):
    """Batch norm, leaky ReLU and 3x3 convolution, twice, added to the input (a 1x1 projection where widths differ).

    With `activate_shortcut`, the shortcut too starts from the activated input.
    """

    def __init__(self, channels: int, width: int, stride: int, activate_shortcut: bool):
        super().__init__()
        self.activate_shortcut = activate_shortcut
        self.norm1, self.norm2 = batch_norm(channels), batch_norm(width)
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(channels, width, 1, stride, bias=False) if channels != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        active = F.leaky_relu(self.norm1(x), SLOPE)
        branch = self.conv2(F.leaky_relu(self.norm2(self.conv1(active)), SLOPE))
        return branch + self.shortcut(active if self.activate_shortcut else x)


class WideResNet(MapEncoder):
    """WRN-depth-width (Zagoruyko and Komodakis 2016) in the variant of FixMatch (Sohn et al. 2020).

    Pre-activation blocks, leaky ReLU of slope .1, batch norm of momentum .001; three groups of 16, 32 and 64 times
    `width` filters, so that the last map has a quarter of the side. `stages` are the three groups. Raises UserError
    where `depth` is not 6 n + 4.
    """

    def __init__(self, spec: DataSpec, depth: int = 28, width: int = 2):
        super().__init__(spec)
        channels, *size = image_shape(spec, "wrn_28_2")
        if depth < 10 or depth % 6 != 4:
            raise UserError(f"encoder.depth={depth} is not 6 n + 4; 10, 16, 22, 28, 34 and 40 are.")
        self.layers, stem = nn.Sequential(), nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        channels = 16
        for group in range(3):
            out = 16 * 2**group * width
            stage = [stem] if group == 0 else []
            for j in range((depth - 4) // 6):
                stride = 2 if group > 0 and j == 0 else 1
                stage.append(PreActivation(channels, out, stride, activate_shortcut=group == 0 and j == 0))
                channels = out
            if group == 2:
                stage += [batch_norm(out), nn.LeakyReLU(SLOPE, inplace=True)]
            self.layers.append(nn.Sequential(*stage))
        self.dim, self.grid = channels, tuple(-(-n // 4) for n in size)
        initialise(self, SLOPE)
