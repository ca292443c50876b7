import math

import pytest
import torch

from sslrun.nn.transformer import patchify, sincos_positions, unpatchify


def test_patches_are_the_squares_of_the_picture_row_by_row():
    x = torch.rand(1, 2, 6, 8)
    patches, grid = patchify(x, 2)
    assert grid == (3, 4) and patches.shape == (1, 12, 8)
    torch.testing.assert_close(patches[0, 1 * 4 + 2], x[0, :, 2:4, 4:6].flatten())


@pytest.mark.parametrize("size", [(6, 8), (5, 9), (1, 1)])
def test_pictures_come_back_from_their_patches(size):
    x = torch.rand(3, 2, *size)
    patches, grid = patchify(x, 4, math.nan)
    assert grid == tuple(-(-n // 4) for n in size)
    assert patches.isnan().sum() == 3 * 2 * (math.prod(grid) * 16 - math.prod(size))
    assert torch.equal(unpatchify(patches, 4, size), x)


def test_half_of_a_position_is_its_row_and_half_its_column():
    positions = sincos_positions((4, 4), 32, (4, 4)).view(4, 4, 32)
    assert torch.equal(positions[1, 0, :16], positions[1, 3, :16])  # the row, whatever the column
    assert torch.equal(positions[0, 2, 16:], positions[3, 2, 16:])
    torch.testing.assert_close(positions[2, 0, 0], torch.tensor(2.0).sin())
    crop = sincos_positions((2, 2), 32, (4, 4)).view(2, 2, 32)
    torch.testing.assert_close(crop[1, 0, 0], torch.tensor(2.5).sin())  # between rows 2 and 3
