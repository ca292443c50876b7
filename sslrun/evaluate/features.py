"""What evaluators read: features of a frozen encoder, flattened inputs, the labelled rows of a split."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sslrun.contracts import Encoder, Split, UserError
from sslrun.progress import progress

RAW_VALUES = 4096  # numbers of a raw sample that a probe reads at most

# LongTensor of positions -> input batch on the device
Inputs = Callable[[Tensor], Any]


@torch.no_grad()
def extract(
    encoder: Encoder,
    x_of: Inputs,
    n: int,
    *,
    batch: int = 512,
    stages: bool = False,
    tokens: bool = False,
    device: torch.device | str,
    autocast_dtype: torch.dtype | None = None,
    title: str | None = None,
) -> dict[str, Any]:
    """Features of samples 0 to n-1 under the field names of Split, float32 on the CPU.

    `features` (n, D); on request `stages`, a list of (n, D_i), and `tokens` (n, N, D), NaN where there is no token.
    With a `title` a bar shows at a terminal when it takes long. The encoder runs in evaluation mode, and every module
    gets back the mode that it had.
    """
    modes = [(module, module.training) for module in encoder.modules()]
    autocast = torch.autocast(torch.device(device).type, autocast_dtype) if autocast_dtype else nullcontext()
    parts: dict[str, list] = {"features": [], "stages": [], "tokens": []}
    encoder.eval()
    try:
        batches = torch.arange(n).split(batch)
        for rows in progress(batches, len(batches), title):
            x = x_of(rows)
            with autocast:
                parts["features"].append(_store(encoder(x)))
                if stages:
                    parts["stages"].append([_store(stage) for stage in encoder.stages(x)])
                if tokens:
                    parts["tokens"].append(_masked(*encoder.tokens(x)))
    finally:
        for module, mode in modes:
            module.training = mode
    found: dict[str, Any] = {"features": torch.cat(parts["features"])}
    if stages:
        found["stages"] = [torch.cat(stage) for stage in zip(*parts["stages"], strict=True)]
    if tokens:
        longest = max(part.shape[1] for part in parts["tokens"])
        found["tokens"] = torch.cat(
            [F.pad(part, (0, 0, 0, longest - part.shape[1]), value=torch.nan) for part in parts["tokens"]]
        )
    return found


def _store(values: Tensor) -> Tensor:
    return values.float().cpu()


def _masked(tokens: Tensor, mask: Tensor | None) -> Tensor:
    tokens = _store(tokens)  # (B, N, D)
    return tokens if mask is None else tokens.masked_fill(~mask.cpu().unsqueeze(-1), torch.nan)


def raw(x_of: Inputs, n: int, *, fill: Tensor | float | None = None, batch: int = 512) -> Tensor:
    """Flattened inputs of samples 0 to n-1, (n, D) float32 on the CPU.

    `fill` is what missing values (NaN) become: one number, or one per channel or column, (C,), such as the means of
    the training part. Without it (None or empty) they stay missing. Samples of more than RAW_VALUES numbers with a
    spatial extent (C, ...) are averaged down to at most that many, since a probe of 150,000 inputs is no baseline.
    """
    value = torch.as_tensor(torch.nan if fill is None else fill, dtype=torch.float32)
    parts = []
    for rows in torch.arange(n).split(batch):
        x = _store(x_of(rows))  # (B, C, ...)
        if value.numel():
            along = value.view(-1, *(1,) * (x.dim() - 2)) if value.dim() else value
            x = torch.where(x.isnan(), along, x)
        parts.append(_averaged(x).flatten(1))
    return torch.cat(parts)


def _averaged(x: Tensor) -> Tensor:
    extent = x.shape[2:]
    if not extent or x[0].numel() <= RAW_VALUES:
        return x
    shrink = (RAW_VALUES / x[0].numel()) ** (1 / len(extent))
    pool = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[len(extent) - 1]
    return pool(x, tuple(max(1, int(side * shrink)) for side in extent))


def health(features: Tensor) -> dict[str, float]:
    """Signs of collapse in features (N, D).

    `effective_rank` is exp(entropy of the normalised singular values) of the centred features (Roy and Vetterli 2007,
    "The effective rank"), between 1 and D, and 0 where all rows are equal. `feature_std` is the mean standard
    deviation of the L2-normalised features times sqrt(D): 1 for an isotropic Gaussian, 0 after collapse.
    `dead_units` is the share of dimensions that never vary.
    """
    dead = features.amax(0) == features.amin(0)
    wide = features.double()
    centred = (wide - wide.mean(0)).masked_fill(dead, 0.0)  # a constant centred by its rounded mean is not quite zero
    gram = centred.T @ centred if centred.shape[0] >= centred.shape[1] else centred @ centred.T
    singular = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    share = singular / singular.sum() if singular.any() else singular
    spread = F.normalize(wide, dim=1).std(0, correction=0).mean() * features.shape[1] ** 0.5
    return {
        "effective_rank": torch.special.entr(share).sum().exp().item() if share.any() else 0.0,
        "feature_std": spread.item(),
        "dead_units": dead.double().mean().item(),
    }


def ordered(split: Split, rows: Tensor | None = None, labelled: bool = True) -> Split:
    """Features, labels and index of a split in the order of `index`, so that no result depends on that of the rows.

    `rows` restricts it to these positions, `labelled` to rows whose label is known (not -1). Raises UserError where
    features are not finite.
    """
    rows = torch.arange(len(split.labels)) if rows is None else rows.cpu()
    if labelled:
        rows = rows[(split.labels.cpu()[rows] >= 0)]
    rows = rows[split.index.cpu()[rows].argsort(stable=True)]
    features = split.features[rows.to(split.features.device)]
    if not features.isfinite().all():
        raise UserError(
            "features hold NaN or infinity, so that nothing can be measured on them; "
            "a smaller `lr` or `precision=32` would help"
        )
    return Split(features, split.labels[rows.to(split.labels.device)], split.index.cpu()[rows])
