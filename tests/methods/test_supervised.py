import pytest
import torch
from batches import Linear, batch, draw, picture

from sslrun.methods.semi.supervised import Supervised


@pytest.mark.parametrize("smoothing", (0.0, 0.2))
def test_loss_is_smoothed_cross_entropy(smoothing):
    encoder = Linear(16, 5)
    objective = Supervised(encoder, picture(), smoothing=smoothing)
    x, y = draw(6, 1, 4, 4), torch.tensor([0, 1, 2, 2, 1, 0])
    out = objective(encoder, batch(labelled={"view": x, "y": y}))
    p = objective.predict(encoder, x)
    target = (1 - smoothing) * torch.eye(3)[y] + smoothing / 3
    assert out["loss"].item() == pytest.approx(-(target * p.log()).sum(1).mean().item(), rel=1e-5)
    assert out["accuracy"] == (p.argmax(1) == y).float().mean()
    torch.testing.assert_close(p.sum(1), torch.ones(6))


def test_unlabelled_data_are_refused():
    with pytest.raises(ValueError, match="at least 2 classes, and data=pictures has 0"):
        Supervised(Linear(16, 5), picture(classes=0))
