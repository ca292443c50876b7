"""Masked image: what was in the patches that the encoder did not get? (MAE, He et al. 2022, arXiv:2111.06377)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sslrun.contracts import Batch, DataSpec, Encoder, UserError
from sslrun.nn.restoration import Pictures
from sslrun.nn.transformer import Block, initialise, patchify, sincos_positions, unpatchify
from sslrun.rng import Rng

HEAD = 32  # features of an attention head in the decoder, as in the paper
EPS = 1e-6  # added to a patch's variance


class Kept(NamedTuple):
    """Whole pictures (B, C, H, W), and the positions (B, M) of the patches that the encoder gets of them."""

    picture: Tensor
    keep: Tensor


class MaskedImage(Pictures):
    """A masked autoencoder: the pixels of most patches, from the few that the encoder gets.

    He et al. 2022, arXiv:2111.06377. The encoder sees the kept patches alone; a decoder of transformer blocks gets its
    tokens, a learned one for each masked patch, and all positions. The squared error is asked of the masked patches
    alone. With `norm_pix` each patch of the target has mean 0 and variance 1 over its pixels and channels, so that
    zeros cost 1; a constant patch (the background of digits) becomes zeros, for there is no contrast to predict.
    Without it pixels count in standard deviations of their channel, and skill is measured against the mean picture.

    Args:
        mask_ratio: share of the patches that are masked, in (0, 1), drawn for each picture.
        decoder_dim: width of the decoder, a multiple of 32.
        decoder_depth: its blocks.
        norm_pix: whether targets are normalised patch by patch.
        recipe: augmentation before masking; it has to leave the size alone.

    Raises UserError for an encoder that cannot leave patches out, and where a picture is a single patch.
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        mask_ratio: float = 0.75,
        decoder_dim: int = 64,
        decoder_depth: int = 2,
        norm_pix: bool = True,
        recipe: str = "plain",
    ):
        super().__init__(encoder, spec, recipe)
        if not encoder.patch:
            raise UserError(
                f"method=masked_image shows the encoder some patches of a picture, and "
                f"encoder={type(encoder).__name__.lower()} cannot leave any out; encoder=vit_micro and "
                "encoder=vit_tiny can."
            )
        if not 0 < mask_ratio < 1:
            raise ValueError(f"mask_ratio={mask_ratio} must lie between 0 and 1, for example 0.75")
        if decoder_dim < HEAD or decoder_dim % HEAD:
            raise ValueError(f"decoder_dim={decoder_dim} must be a multiple of {HEAD}, for example {2 * HEAD}")
        self.patch, self.size, self.norm_pix = encoder.patch, tuple(spec.shape[1:]), norm_pix
        self.count = math.prod(encoder.grid)
        if self.count < 2:
            raise UserError(
                f"encoder.patch={self.patch} makes one patch of each picture of data={spec.name}, and method="
                f"masked_image needs some to show and some to mask; encoder.patch={max(1, min(self.size) // 4)} works."
            )
        self.kept = min(max(round(self.count * (1 - mask_ratio)), 1), self.count - 1)
        self.enter = nn.Linear(encoder.dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.empty(decoder_dim))
        self.blocks = nn.Sequential(*(Block(decoder_dim, decoder_dim // HEAD) for _ in range(decoder_depth)))
        self.norm = nn.LayerNorm(decoder_dim, eps=1e-6)
        self.pixels = nn.Linear(decoder_dim, spec.shape[0] * self.patch**2)
        positions = sincos_positions(encoder.grid, decoder_dim, encoder.grid)
        self.register_buffer("positions", positions, persistent=False)  # (N, decoder_dim)
        initialise(self)
        nn.init.normal_(self.mask_token, std=0.02)

    def make(self, x: Tensor, rng: Rng) -> tuple[Kept, Tensor]:
        """The kept patches, and the targets (B, N, pixels of a patch), NaN where none is asked for."""
        if tuple(x.shape[2:]) != self.size:
            raise UserError(
                f"method=masked_image got pictures of {x.shape[2]} x {x.shape[3]} pixels where data has "
                f"{self.size[0]} x {self.size[1]}; choose a recipe that leaves the size alone."
            )
        keep = rng.orders(self.count)[:, : self.kept]  # (B, M)
        target = self.patches(x)
        if self.norm_pix:
            mean, spread = contrast(target)
            target = (target - mean) / spread
        return Kept(x, keep), target.masked_fill(self.shown(keep), math.nan)

    def patches(self, x: Tensor) -> Tensor:
        """Standardised pictures as patches (B, N, P), NaN where they jut out of the picture."""
        return patchify((x - self.mean.to(x.dtype)) / self.std.to(x.dtype), self.patch, math.nan)[0]

    def shown(self, keep: Tensor) -> Tensor:
        """Which patches the encoder gets, (B, N, 1)."""
        shown = torch.zeros(len(keep), self.count, dtype=torch.bool, device=keep.device)
        return shown.scatter(1, keep, True).unsqueeze(2)

    def answer(self, encoder: Encoder, inputs: Kept) -> Tensor:
        """The pixels of every patch, in units of the target, (B, N, P)."""
        known = self.enter(encoder.tokens(*inputs)[0])  # (B, M, decoder_dim)
        every = self.mask_token.to(known.dtype).expand(len(known), self.count, -1)
        at = inputs.keep.unsqueeze(2).expand_as(known)
        every = every.scatter(1, at, known) + self.positions.to(known.dtype)
        return self.pixels(self.norm(self.blocks(every)))

    def guess(self, inputs: Kept, target: Tensor) -> Tensor:
        if self.norm_pix:
            return torch.zeros_like(target)
        return self.patches(self.picture.to(target.dtype).unsqueeze(0)).expand_as(target)

    def figure(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        """Masked pictures, the same with the answer in their masked patches, and the whole ones.

        Normalised answers get the mean and the spread of the patch that they stand for, which the network cannot know.
        """
        x = self.read(batch)
        inputs, _ = self.make(x, batch["all"].rng("make", type(self).__name__))
        answer, patches = self.answer(encoder, inputs).float(), self.patches(x)
        if self.norm_pix:
            mean, spread = contrast(patches)
            answer = answer * spread + mean
        shown = self.shown(inputs.keep)
        masked, filled = patches.masked_fill(~shown, math.nan), torch.where(shown, patches, answer)
        return {"input": self.pictures(masked), "output": self.pictures(filled), "target": x}

    def pictures(self, patches: Tensor) -> Tensor:
        """The inverse of `patches`, (B, C, H, W)."""
        return unpatchify(patches, self.patch, self.size) * self.std + self.mean


def contrast(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and spread of the pixels of each patch (B, N, P), each (B, N, 1)."""
    mean = patches.nanmean(2, keepdim=True)
    return mean, ((patches - mean).square().nanmean(2, keepdim=True) + EPS).sqrt()
