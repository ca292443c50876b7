"""Batch norm over the global batch, on any device."""

from __future__ import annotations

import torch
from lightning.pytorch import plugins
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sslrun.nn.gather import all_sum, world


class GlobalBatchNorm(_BatchNorm):
    """Batch norm (Ioffe and Szegedy 2015) whose statistics are those of all processes' samples together.

    Equal to the plain layer on the whole batch, in outputs, gradients and running statistics. Statistics are computed
    in two passes (the mean of squares cancels in float32) and never in half precision.
    """

    def forward(self, x: Tensor) -> Tensor:
        if world() == 1 or not (self.training or self.running_mean is None):
            return super().forward(x)
        self._check_input_dim(x)
        half = x.dtype in (torch.float16, torch.bfloat16)
        y, dims, tail = x.float() if half else x, (0, *range(2, x.dim())), (1,) * (x.dim() - 2)
        count = y.new_full((1,), y.numel() // y.shape[1])
        total = all_sum(torch.cat([y.sum(dims), count]))  # (C + 1,)
        mean, count = total[:-1] / total[-1], total[-1].detach()
        y = y - mean.view(1, -1, *tail)
        var = all_sum(y.square().sum(dims)) / count  # (C,)
        if self.training and self.track_running_stats and self.running_mean is not None:
            self.track(mean.detach(), var.detach() * count / (count - 1).clamp_min(1))
        scale = (var + self.eps).rsqrt()
        if self.affine:
            scale = scale * self.weight
        y = y * scale.view(1, -1, *tail)
        if self.affine:
            y = y + self.bias.view(1, -1, *tail)
        return y.to(x.dtype)

    @torch.no_grad()
    def track(self, mean: Tensor, var: Tensor) -> None:
        """Moves the running statistics by this batch's mean and unbiased variance, (C,)."""
        self.num_batches_tracked += 1
        # without a momentum the running statistics are the plain mean over batches
        share = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked.item()
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(var.to(self.running_var.dtype), share)


class GlobalBatchNorm1d(GlobalBatchNorm, nn.BatchNorm1d):
    """For (B, C) and (B, C, L)."""


class GlobalBatchNorm2d(GlobalBatchNorm, nn.BatchNorm2d):
    """For (B, C, H, W)."""


class GlobalBatchNorm3d(GlobalBatchNorm, nn.BatchNorm3d):
    """For (B, C, D, H, W)."""


GLOBAL = {
    nn.BatchNorm1d: GlobalBatchNorm1d,
    nn.BatchNorm2d: GlobalBatchNorm2d,
    nn.BatchNorm3d: GlobalBatchNorm3d,
}
LOCAL = {wide: plain for plain, wide in GLOBAL.items()}


def exchange(module: nn.Module, classes: dict[type, type]) -> nn.Module:
    for part in module.modules():
        # the class alone changes, so that parameters, keys and every reference to the layer stay
        part.__class__ = classes.get(type(part), type(part))
    return module


def synchronise(module: nn.Module) -> nn.Module:
    """Makes every plain batch norm of `module` global, in place; subclasses of them are left alone."""
    return exchange(module, GLOBAL)


class LayerSync(plugins.LayerSync):
    """The Lightning plugin that makes batch norm global before the model is wrapped, and local again at the end."""

    def apply(self, model: nn.Module) -> nn.Module:
        return synchronise(model)

    def revert(self, model: nn.Module) -> nn.Module:
        return exchange(model, LOCAL)
