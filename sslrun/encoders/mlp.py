"""A multilayer perceptron for tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sslrun.contracts import DataSpec, Encoder, UserError
from sslrun.nn.columns import Columns


class Mlp(Encoder):
    """Hidden layers of Linear, LayerNorm and ReLU on the columns of a table, (B, columns).

    A number enters as two inputs: its standardised value (0 where missing) and 1 where it is missing. A category
    enters as an embedding of min(16, ceil(sqrt(codes))) features; missing and unknown codes are code 0. One sample is
    one token; `stages` are the hidden layers. Raises UserError where samples are not rows of a table.
    """

    modalities = ("table",)

    grid = (1,)

    def __init__(self, spec: DataSpec, widths: Sequence[int] = (256, 256)):
        super().__init__(spec)
        if len(spec.shape) != 1:
            raise UserError(
                f"encoder=mlp reads tables, but data={spec.name} has samples of shape {tuple(spec.shape)}; "
                f"for pictures encoder=cnn works."
            )
        if not len(widths):
            raise UserError("encoder.widths=[] has no hidden layer; [256, 256] has two.")
        self.columns = Columns(spec)
        sizes = self.columns.categories.values()
        self.embeddings = nn.ModuleList(nn.Embedding(n, min(16, math.ceil(math.sqrt(n)))) for n in sizes)
        inputs = 2 * len(self.columns.numeric) + sum(e.embedding_dim for e in self.embeddings)
        self.layers = nn.ModuleList()
        for width in widths:
            self.layers.append(nn.Sequential(nn.Linear(inputs, width), nn.LayerNorm(width), nn.ReLU()))
            inputs = width
        self.dim = inputs

    def inputs(self, x: Tensor) -> Tensor:
        """(B, columns) to the inputs of the first layer, (B, I)."""
        numeric = self.columns.numeric
        value = self.standardise(x)[:, numeric]
        missing = x[:, numeric].isnan().to(value.dtype)
        # a constant column divides 0 by 0 where its standard deviation is stated as 0
        parts = [value.nan_to_num(0.0, 0.0, 0.0), missing]
        parts += [embed(code) for embed, code in zip(self.embeddings, self.columns.codes(x), strict=True)]
        return torch.cat(parts, 1)

    def stages(self, x: Tensor) -> list[Tensor]:
        x, outputs = self.inputs(x), []
        for layer in self.layers:
            x = layer(x)
            outputs.append(x)
        return outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.stages(x)[-1]

    def tokens(self, x: Tensor, keep: Tensor | None = None) -> tuple[Tensor, None]:
        """The one token of each row, (B, 1, D); a `keep` raises UserError."""
        if keep is not None:
            raise UserError("encoder=mlp has one token a row and cannot leave any out; encoder=vit_tiny can.")
        return self(x).unsqueeze(1), None
