"""Image encoders of the timm library."""

from __future__ import annotations

import difflib
import math
from typing import Any

import torch
from torch import Tensor, nn

from sslrun.contracts import DataSpec, Encoder, UserError
from sslrun.encoders.cnn import image_shape


def create(name: str, pretrained: bool, channels: int, size: tuple[int, int]) -> nn.Module:
    """A timm model without its classifier, for pictures of this size; UserError where it cannot be had."""
    try:
        import timm
    except ImportError as error:
        raise UserError("encoder=timm needs the package timm: `pip install 'sslrun[timm]'` installs it.") from error
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4) or ["resnet18", "convnext_atto"]
        raise UserError(f"encoder.name={name} is no model of timm {timm.__version__}; {', '.join(near)} are.")
    # only models with positions take a picture size, and not all of those take other sizes later
    attempts: list[dict[str, Any]] = [{"img_size": size, "dynamic_img_size": True}, {"img_size": size}, {}]
    for extra in attempts:
        try:
            return timm.create_model(name, pretrained=pretrained, num_classes=0, in_chans=channels, **extra)
        except TypeError:
            if not extra:
                raise
        except (OSError, RuntimeError) as error:
            if not pretrained:
                raise
            raise UserError(
                f"encoder.pretrained=true found no weights for encoder.name={name} at https://huggingface.co/timm nor "
                f"in the cache that HF_HOME names; encoder.pretrained=false starts from random weights."
            ) from error
    raise AssertionError("the last attempt returns or raises")


class Timm(Encoder):
    """An image model of timm (Wightman 2019) by its name, pretrained or not.

    Tokens are the cells of its last map, or its patch tokens without class and register tokens. Pretrained models of
    three channels keep the channel statistics that they were trained with. Raises UserError where timm is missing,
    the name is unknown or weights cannot be fetched.
    """

    modalities = ("image",)

    def __init__(self, spec: DataSpec, name: str, pretrained: bool = False):
        super().__init__(spec)
        channels, *size = image_shape(spec, "timm")
        self.model = create(name, pretrained, channels, tuple(size))
        if pretrained and channels == 3:
            self.mean.copy_(torch.tensor(self.model.pretrained_cfg["mean"]))
            self.std.copy_(torch.tensor(self.model.pretrained_cfg["std"]))
        training = self.model.training
        with torch.no_grad():
            last = self.eval().last(torch.zeros(1, *spec.shape))
        self.model.train(training)
        self.train()
        self.dim, self.grid = last.shape[-1], tuple(last.shape[1:-1])
        grid = getattr(getattr(self.model, "patch_embed", None), "grid_size", None)
        if len(self.grid) == 1 and grid and math.prod(grid) == self.grid[0]:
            self.grid = tuple(grid)

    def last(self, x: Tensor) -> Tensor:
        """The last features, a map (B, h, w, D) or a sequence (B, N, D)."""
        x = self.model.forward_features(self.standardise(x))
        if x.dim() == 2:
            return x.unsqueeze(1)
        if x.dim() == 3:
            return x[:, getattr(self.model, "num_prefix_tokens", 0) :]
        return x if getattr(self.model, "output_fmt", "NCHW") == "NHWC" else x.permute(0, 2, 3, 1)

    def tokens(self, x: Tensor, keep: Tensor | None = None) -> tuple[Tensor, None]:
        """(B, N, D); a `keep` raises UserError."""
        if keep is not None:
            raise UserError("encoder=timm cannot leave patches out; encoder=vit_micro and encoder=vit_tiny can.")
        x = self.last(x)
        return x.reshape(len(x), -1, self.dim), None

    def stages(self, x: Tensor) -> list[Tensor]:
        """Pooled maps of each stage where the model offers them, else the features alone."""
        if not hasattr(self.model, "forward_intermediates"):
            return [self(x)]
        maps = self.model.forward_intermediates(self.standardise(x), intermediates_only=True, output_fmt="NCHW")
        return [*(m.mean((2, 3)) for m in maps[:-1]), self(x)]
