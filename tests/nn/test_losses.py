import math

import pytest
import torch
from torch import nn

from sslrun.nn.heads import mlp_head
from sslrun.nn.losses import info_nce, unit


def by_definition(z1, z2, temperature):
    """Equation 1 of the paper, term by term."""
    z = torch.nn.functional.normalize(torch.cat([z1, z2]), dim=1)
    b, terms, hits = len(z1), [], 0
    for i in range(2 * b):
        j = (i + b) % (2 * b)
        similar = {k: float(z[i] @ z[k]) / temperature for k in range(2 * b) if k != i}
        terms.append(-similar[j] + math.log(sum(math.exp(s) for s in similar.values())))
        hits += max(similar, key=similar.get) == j
    return sum(terms) / (2 * b), hits / (2 * b)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_equals_the_definition(temperature):
    z1, z2 = torch.randn(2, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z2 = z1 + 0.7 * z2
    loss, accuracy = info_nce(z1, z2, temperature)
    expected, hits = by_definition(z1, z2, temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    assert accuracy.item() == pytest.approx(hits) and 0 < hits < 1
    assert info_nce(z1, z2, temperature, gather=False)[0].item() == pytest.approx(expected, rel=1e-12)


def test_orthogonal_pairs_have_a_closed_form():
    z, t = torch.eye(4, dtype=torch.float64), 0.5
    loss, accuracy = info_nce(z, 3 * z, t)
    assert loss.item() == pytest.approx(math.log(math.exp(1 / t) + 6) - 1 / t) and accuracy == 1


def test_gradient_is_right():
    z1, z2 = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: info_nce(a, b, 0.3)[0], (z1.clone(), z2.clone()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_at_a_low_temperature(dtype):
    z1 = torch.randn(16, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    z2 = (z1 + 0.3 * torch.randn(16, 8, generator=torch.Generator().manual_seed(1))).to(dtype)
    z1[3] = 0
    z1.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = info_nce(z1, z2, 0.01)
        close = info_nce(z1, z2, 0.05)[0]
    loss.backward()
    assert loss.isfinite() and z1.grad.isfinite().all() and z1.grad.any()
    exact = info_nce(z1.detach().double(), z2.double(), 0.05)[0]
    assert close.item() == pytest.approx(exact.item(), rel=1e-3)


def test_unit_vectors():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-6, 0.0]], requires_grad=True)
    y = unit(x)
    torch.testing.assert_close(y, torch.tensor([[0.6, 0.8], [0.0, 0.0], [1.0, 0.0]]))
    y.sum().backward()
    assert x.grad.isfinite().all() and not x.grad[1].any()


def test_heads():
    def kinds(head):
        return [type(m).__name__ for m in head]

    head = mlp_head(8, 16, 4, layers=3, last_norm=True)
    norm = "BatchNorm1d"
    assert kinds(head) == ["Linear", norm, "ReLU", "Linear", norm, "ReLU", "Linear", norm]
    assert head[0].bias is None and head[6].bias is None and not head[7].affine
    out = head(torch.randn(32, 8))
    torch.testing.assert_close(out.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    assert kinds(mlp_head(8, 16, 4, batch_norm=False)) == ["Linear", "ReLU", "Linear"]
    linear = mlp_head(8, 16, 4, layers=1)
    assert isinstance(linear[0], nn.Linear) and linear[0].bias is not None and len(linear) == 1
