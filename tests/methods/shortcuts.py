"""What gives a pretext task away: pictures that hold nothing else, and how much a linear guess gets out of them."""

from __future__ import annotations

import numpy as np
import torch
from batches import draw
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from sslrun.nn.blur import blur


def places(height: int, width: int) -> Tensor:
    """A picture whose two channels are its own positions, -1 to 1 from edge to edge, (1, 2, H, W)."""
    down, across = ((torch.arange(n) * 2.0 + 1) / n - 1 for n in (height, width))
    return torch.stack([across.expand(height, width), down.unsqueeze(1).expand(height, width)]).unsqueeze(0)


def textures(n: int, size: int = 32) -> Tensor:
    """Noise that is alike for a pixel or two, brighter to the right and to the bottom, (n, 1, size, size)."""
    ramp = torch.linspace(0, 4, size)
    noise = blur(draw(n, 1, size, size), torch.full((n,), 0.7), 3)
    return noise + ramp + ramp.unsqueeze(1)


def guessed(features: Tensor, target: Tensor) -> float:
    """Accuracy of a logistic regression on the second half."""
    half = len(features) // 2
    features = np.asarray((features - features.mean(0)) / features.std(0).clamp_min(1e-6))
    model = LogisticRegression(max_iter=200).fit(features[:half], target[:half])
    return model.score(features[half:], target[half:])
