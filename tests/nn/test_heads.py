"""Heads from tokens to pixels."""

import pytest
import torch

from sslrun.contracts import Encoder, UserError
from sslrun.nn.heads import DenseHead


class Grid(Encoder):
    def __init__(self, grid, dim=3):
        torch.nn.Module.__init__(self)
        self.grid, self.dim = grid, dim


@pytest.mark.parametrize(("grid", "size"), [((2, 3), (4, 9)), ((2, 2), (5, 8)), ((4, 4), (8, 8)), ((1, 1), (3, 2))])
def test_maps_have_the_size_of_the_pictures(grid, size):
    head = DenseHead(Grid(grid), size, out=2, hidden=5)
    assert head(torch.randn(7, grid[0] * grid[1], 3)).shape == (7, 2, *size)


def test_every_cell_makes_its_own_block_of_pixels():
    head = DenseHead(Grid((2, 3)), (4, 9), out=2, hidden=5)
    with torch.no_grad():
        head.mix.weight[:, :, [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0  # no neighbours
        tokens = torch.randn(1, 6, 3)
        other = tokens.clone()
        other[0, 4] += 1  # second row, second column
        changed = (head(tokens) != head(other))[0].any(0)
        wanted = torch.zeros(4, 9, dtype=torch.bool)
        wanted[2:4, 3:6] = True
        assert torch.equal(changed, wanted)
        head.pixels.weight.zero_()
        head.pixels.bias.copy_(torch.arange(12))
        block = torch.arange(12.0).view(2, 2, 3)
        assert torch.equal(head(tokens)[0], block.repeat(1, 2, 3))


def test_neighbours_are_seen():
    head = DenseHead(Grid((3, 3)), (3, 3), out=1)
    tokens = torch.randn(1, 9, 3)
    other = tokens.clone()
    other[0, 0] += 1
    changed = (head(tokens) != head(other))[0, 0]
    assert changed[:2, :2].all() and not changed[2].any() and not changed[:, 2].any()


def test_tokens_without_rows_and_columns_are_refused():
    with pytest.raises(UserError, match="encoder=grid has no rows and columns.*encoder=vit_tiny"):
        DenseHead(Grid((5,)), (8, 8), out=1)
    with pytest.raises(UserError, match="2 x 2 tokens got 9.*recipe"):
        DenseHead(Grid((2, 2)), (4, 4), out=1)(torch.zeros(1, 9, 3))
