"""Losses that several methods share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sslrun.nn.gather import gather as gather_rows
from sslrun.nn.gather import rank, sizes, world


def unit(x: Tensor) -> Tensor:
    """`x` (..., D) on the unit sphere, in float32 or better; a zero vector stays zero and gets no gradient."""
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    zero = norm < 1e-12
    # not x / max(norm, tiny): its gradient at zero is 1 / tiny, infinite once it is cast to half
    return torch.where(zero, torch.zeros_like(x), x / norm.masked_fill(zero, 1.0))


def info_nce(z1: Tensor, z2: Tensor, temperature: float, gather: bool = True) -> tuple[Tensor, Tensor]:
    """NT-Xent of two views (Chen et al. 2020, SimCLR) and the share of anchors whose nearest candidate is their pair.

    `z1`, `z2` (B, D) are the embeddings of the same samples, of any length and precision. Every local embedding is an
    anchor; its candidates are the 2 B - 1 other embeddings, with `gather` those of all processes. The mean over
    processes of the loss is the loss of the global batch, also where their batches differ in size.
    """
    with torch.autocast(z1.device.type, enabled=False):
        anchors = unit(torch.stack([z1, z2], 1))  # (B, 2, D)
        counts = sizes(anchors) if gather else [len(z1)]
        candidates = (gather_rows(anchors, counts) if gather else anchors).flatten(0, 1)  # (2 G, D), pairs adjacent
        anchors = anchors.flatten(0, 1)  # (2 B, D)
        own = 2 * sum(counts[: rank()] if gather else []) + torch.arange(len(anchors), device=anchors.device)
        logits = (anchors / temperature) @ candidates.T  # (2 B, 2 G)
        logits = logits.scatter_(1, own.unsqueeze(1), -torch.inf)
        positive = own ^ 1  # the other one of an adjacent pair
        loss = F.cross_entropy(logits, positive, reduction="sum")
        share = world() / (2 * sum(counts)) if gather else 1 / len(anchors)
        return loss * share, (logits.detach().argmax(1) == positive).float().mean()
