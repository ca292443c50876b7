import math

import pytest
import torch

from sslrun.contracts import DataSpec, Field, UserError
from sslrun.encoders.identity import Identity
from sslrun.encoders.mlp import Mlp
from sslrun.encoders.projection import Projection

NAN = float("nan")


def table():
    fields = (Field("age"), Field("colour", "categorical", 5), Field("height"))
    return DataSpec("people", "table", (3,), mean=(40.0, 2.0, 1.7), std=(10.0, 1.0, 0.1), fields=fields)


def test_inputs_are_values_flags_and_embeddings():
    encoder = Mlp(table(), widths=[8])
    x = torch.tensor([[50.0, 3.0, 1.6], [NAN, NAN, 1.7], [40.0, 7.0, NAN], [40.0, -2.0, 1.7]])
    inputs = encoder.inputs(x)
    numbers = torch.tensor([[1.0, -1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
    torch.testing.assert_close(inputs[:, :4], numbers, atol=1e-5, rtol=0)
    embedding = encoder.embeddings[0].weight
    assert embedding.shape == (5, math.ceil(math.sqrt(5)))
    torch.testing.assert_close(inputs[:, 4:], embedding[[3, 0, 0, 0]])


def test_tokens_stages_and_round_trip():
    encoder = Mlp(table(), widths=(8, 6))
    x = torch.tensor([[50.0, 3.0, 1.6], [NAN, NAN, NAN]])
    tokens, mask = encoder.tokens(x)
    assert tokens.shape == (2, 1, 6) and mask is None and encoder.dim == 6
    torch.testing.assert_close(encoder(x), tokens.mean(1))
    stages = encoder.stages(x)
    assert [s.shape for s in stages] == [(2, 8), (2, 6)]
    torch.testing.assert_close(stages[-1], encoder(x))
    by_hand = torch.relu(torch.nn.functional.layer_norm(encoder.layers[0][0](encoder.inputs(x)), (8,)))
    torch.testing.assert_close(stages[0], by_hand)
    encoder(x).sum().backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters())
    copy = Mlp(table(), widths=(8, 6))
    copy.load_state_dict(encoder.state_dict())
    assert torch.equal(copy(x), encoder(x))


def test_a_constant_column_is_harmless():
    encoder = Mlp(DataSpec("d", "table", (2,), mean=(0.0, 3.0), std=(1.0, 0.0)), widths=[4])
    torch.testing.assert_close(encoder.inputs(torch.tensor([[1.0, 3.0]])), torch.tensor([[1.0, 0.0, 0.0, 0.0]]))


def test_identity_is_the_standardised_input():
    encoder = Identity(table())
    assert encoder.dim == 6 and not list(encoder.parameters())
    x = torch.tensor([[50.0, 3.0, NAN], [40.0, 0.0, 1.7], [40.0, 9.0, 1.7]])
    numbers = torch.tensor([[1.0, 0], [0, 0], [0, 0]])
    values = torch.tensor([[0.0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])  # of codes 1 to 4; 0 is missing, 9 unknown
    torch.testing.assert_close(encoder(x), torch.cat([numbers, values], 1))


def test_what_all_directions_keep_is_the_sample():
    encoder = Projection(table(), dim=6)
    x = torch.tensor([[50.0, 3.0, 1.6], [41.0, 1.0, 1.9]])
    torch.testing.assert_close(encoder.back(encoder(x)), x, atol=1e-4, rtol=0)
    torch.testing.assert_close(encoder.restored(encoder(x)), Identity(table())(x), atol=1e-5, rtol=0)


def test_pictures_are_refused():
    with pytest.raises(UserError, match="encoder=cnn"):
        Mlp(DataSpec("digits", "image", (1, 8, 8)))
    with pytest.raises(UserError, match="widths"):
        Mlp(table(), widths=[])
