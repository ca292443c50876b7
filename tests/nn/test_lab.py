import colorsys

import pytest
import torch

from sslrun.nn.lab import lab, light, lightness, rgb

# scikit-image's rgb2lab (D65, 2 degrees)
KNOWN = {
    (1.0, 1.0, 1.0): (100.0, 0.0, 0.0),
    (0.0, 0.0, 0.0): (0.0, 0.0, 0.0),
    (1.0, 0.0, 0.0): (53.2408, 80.0925, 67.2032),
    (0.0, 1.0, 0.0): (87.7347, -86.1827, 83.1793),
    (0.0, 0.0, 1.0): (32.2970, 79.1875, -107.8602),
    (0.5, 0.5, 0.5): (53.3890, 0.0, 0.0),
}


@pytest.mark.parametrize(("colour", "expected"), KNOWN.items())
def test_known_colours(colour, expected):
    found = lab(torch.tensor([colour]).double())
    torch.testing.assert_close(found, torch.tensor([expected]).double(), atol=5e-3, rtol=0)
    torch.testing.assert_close(lightness(torch.tensor([colour]).double()), found[:, :1])


def test_below_the_knee_lightness_is_linear():
    """The standard's constant: L* = 903.3 Y for the darkest colours."""
    dark = torch.tensor([[0.01, 0.01, 0.01], [0.02, 0.02, 0.02]]).double()
    torch.testing.assert_close(lightness(dark).squeeze(1), 903.296 * dark[:, 0] / 12.92, rtol=1e-4, atol=0)


def test_colours_come_back():
    x = torch.rand(50, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rgb(lab(x)), x, atol=1e-4, rtol=0)
    torch.testing.assert_close(lab(x)[:, :1], lightness(x))


def test_what_no_screen_shows_is_clipped():
    beyond = torch.tensor([[50.0, -120.0, 120.0]])
    assert light(beyond).min() < 0 and rgb(beyond).min() == 0 and rgb(beyond).max() <= 1


def test_the_angle_of_a_and_b_turns_with_the_hue():
    """Six hues in order, as an independent notion of colour orders them."""
    x = torch.tensor([colorsys.hsv_to_rgb(h / 6, 1, 1) for h in range(6)])
    _, a, b = lab(x).unbind(1)
    turn = torch.atan2(b, a).diff() % (2 * torch.pi)
    assert (turn > 0).all() and turn.sum() < 2 * torch.pi
