"""What methods have in common that ask for whole samples back, cell by cell."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sslrun.contracts import DataSpec, Encoder, Predict
from sslrun.nn.columns import Columns
from sslrun.nn.heads import mlp_head


class Cells(Predict):
    """A decoder from the encoder's features (B, D) alone to every number of a sample.

    Numbers are asked for in standard deviations of their column or channel (squared error), categories as codes
    (cross-entropy); missing cells are not asked for. Without learning there are the mean of each column or channel
    and the training part's frequencies of categories. A subclass writes `make`, with clean samples for targets.

    Args:
        hidden: width of the decoder's hidden layer.
    """

    kind = "real"

    def __init__(self, encoder: Encoder, spec: DataSpec, hidden: int):
        super().__init__(encoder, spec)
        each = math.prod(spec.shape[1:])
        columns = Columns(spec)
        self.numeric, self.categorical = columns.numeric.tolist(), list(columns.categories.items())
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            self.register_buffer(name, torch.tensor(values).repeat_interleave(each)[self.numeric])
        self.register_buffer("typical", torch.zeros(len(self.numeric)))  # the mean sample, in standard deviations
        self.register_buffer("frequencies", torch.zeros(0))  # of the categories' codes, column after column
        outputs = len(self.numeric) + sum(size for _, size in self.categorical)
        self.decoder = mlp_head(encoder.dim, hidden, outputs)

    def prepare(self, data: Any, encoder: Encoder) -> None:
        x = data.train.inputs(data.sample(10_000)).flatten(1)
        counts = [torch.bincount(x[:, i].long(), minlength=size) for i, size in self.categorical]
        for count in counts:
            count[0] = 0  # missing: never asked for
        self.frequencies = torch.cat([self.frequencies, *counts]).to(self.frequencies)

    def scaled(self, flat: Tensor) -> Tensor:
        """The numbers of flattened samples (B, columns) in standard deviations, (B, numeric)."""
        return (flat[:, self.numeric] - self.mean) / self.std

    def answer(self, encoder: Encoder, inputs: Tensor) -> Tensor:
        return self.decoder(encoder(inputs))

    def losses(self, answer: Tensor, target: Tensor) -> Tensor:
        target = target.flatten(1)
        wanted = self.scaled(target)  # (B, numeric)
        known = ~wanted.isnan()
        n = len(self.numeric)
        total = ((answer[:, :n].float() - wanted.nan_to_num(0)).square() * known).sum(1)
        count = known.sum(1)
        start = n
        for i, size in self.categorical:
            code = target[:, i].nan_to_num(0).long().clamp(0, size - 1)
            total = total + F.cross_entropy(
                answer[:, start : start + size].float(), code, ignore_index=0, reduction="none"
            )
            count = count + (code > 0)
            start += size
        return total / count.clamp_min(1)  # (B,)

    def guess(self, inputs: Tensor, target: Tensor) -> Tensor:
        """The mean sample, and the training frequencies of categories."""
        logs = self.frequencies.to(target.device).clamp_min(1e-6).log()
        return torch.cat([self.typical.to(logs), logs]).expand(len(target), -1)

    def complete(self, encoder: Encoder, x: Tensor) -> Tensor:
        """The reconstructed samples in the data's own units, like x."""
        answer = self.answer(encoder, x).float()
        full = x.flatten(1).clone()
        full[:, self.numeric] = answer[:, : len(self.numeric)] * self.std + self.mean
        start = len(self.numeric)
        for i, size in self.categorical:
            full[:, i] = answer[:, start + 1 : start + size].argmax(1).float() + 1
            start += size
        return full.view_as(x)
