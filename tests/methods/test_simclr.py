import numpy as np
import pytest
import torch
from batches import Linear, batch, draw, picture
from torch import nn

from sslrun.methods.contrastive.simclr import SimCLR


def nt_xent(z1, z2, temperature):
    """Chen et al. 2020, equation 1, by loops: the mean over all 2 B anchors."""
    z = np.concatenate([z1, z2]).astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    b, total = len(z1), 0.0
    for i in range(2 * b):
        others = [np.exp(z[i] @ z[k] / temperature) for k in range(2 * b) if k != i]
        total -= np.log(np.exp(z[i] @ z[(i + b) % (2 * b)] / temperature) / sum(others))
    return total / (2 * b)


@pytest.mark.parametrize("temperature", (0.07, 0.5))
def test_loss_is_the_papers(temperature):
    encoder = Linear(16, 6)
    objective = SimCLR(encoder, picture(), temperature=temperature, hidden=8, projection=5)
    objective.head = nn.Identity()
    views = draw(7, 1, 4, 4), draw(7, 1, 4, 4, seed=1)
    out = objective(encoder, batch(all={"view1": views[0], "view2": views[1]}))
    z1, z2 = (encoder(v).detach().numpy() for v in views)
    assert out["loss"].item() == pytest.approx(nt_xent(z1, z2, temperature), rel=1e-5)


def test_equal_views_of_distinct_samples_are_found_and_a_collapsed_encoder_is_at_chance():
    encoder = Linear(16, 6)
    objective = SimCLR(encoder, picture(), temperature=0.1)
    objective.head = nn.Identity()
    x = draw(8, 1, 4, 4)
    assert objective(encoder, batch(all={"view1": x, "view2": x}))["accuracy"] == 1
    same = torch.ones(8, 1, 4, 4)
    collapsed = objective(encoder, batch(all={"view1": same, "view2": same}))
    assert collapsed["loss"].item() == pytest.approx(np.log(15), rel=1e-5)


def test_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match="temperature=0 must be above 0"):
        SimCLR(Linear(16, 6), picture(), temperature=0)
