"""PCA: the directions in which the inputs vary most, by one exact pass (Pearson 1901; Hotelling 1933)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sslrun.contracts import Batch, DataSpec, Encoder, Objective, UserError
from sslrun.nn.columns import FlatInputs
from sslrun.nn.gather import all_sum
from sslrun.nn.rows import SAMPLE

MOST = 8192  # numbers of a sample: their covariance is held, and taken apart


class Pca(Objective):
    """Sets `encoder=projection` to the principal components of the standardised inputs.

    Hotelling 1933, "Analysis of a complex of statistical variables into principal components". The first pass adds up
    the covariance, centred and in float64, over all processes; then its leading eigenvectors become the encoder, each
    with its largest entry above 0. The loss, and each sample's `score`, is the mean squared error of what the
    components give back, in standard deviations; without learning there is the mean sample.
    """

    streams = ("all",)
    trains = False
    whole_epochs = True

    def __init__(self, encoder: Encoder, spec: DataSpec):
        super().__init__(encoder, spec)
        if not hasattr(encoder, "components"):
            raise UserError(
                f"method=pca sets encoder=projection, and this encoder is {type(encoder).__name__}; leave encoder= and "
                "weights= out."
            )
        columns = encoder.components.shape[1]
        if columns > MOST:
            raise UserError(
                f"method=pca holds the covariance of all {columns:,} numbers of a sample of data={spec.name}, and "
                f"takes {MOST:,} at most; use smaller samples, or method=autoencoder."
            )
        self.inputs = FlatInputs(spec)
        self.register_buffer("origin", torch.zeros(columns, dtype=torch.float64))
        self.register_buffer("sums", torch.zeros(columns, dtype=torch.float64))
        self.register_buffer("scatter", torch.zeros(columns, columns, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("variances", torch.zeros(columns, dtype=torch.float64))  # falling
        self.register_buffer("done", torch.zeros((), dtype=torch.bool))

    def flat(self, x: Tensor) -> Tensor:
        return self.inputs(x).double()

    def prepare(self, data: Any, encoder: Encoder) -> None:
        parts = [self.flat(data.train.inputs(rows)) for rows in data.sample(SAMPLE).split(1024)]
        self.origin = torch.cat(parts).mean(0)

    def forward(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        errors = self.errors(encoder, batch["all"]["x"])  # (B,)
        if not self.training:
            return {"loss": errors.mean().float()}
        z = self.flat(batch["all"]["x"]) - self.origin  # (B, D)
        packed = all_sum(torch.cat([(z.T @ z).flatten(), z.sum(0), errors.sum().view(1), z.new_tensor([len(z)])]))
        d = len(self.origin)
        self.scatter += packed[: d * d].view(d, d)
        self.sums += packed[d * d : -2]
        self.count += packed[-1]
        return {"loss": (packed[-2] / packed[-1]).float()}

    def after_epoch(self, encoder: Encoder) -> None:
        shift = self.sums / self.count
        values, vectors = torch.linalg.eigh(self.scatter / self.count - torch.outer(shift, shift))  # rising
        components = vectors.flip(1)[:, : encoder.dim].T  # (dim, D)
        largest = components.gather(1, components.abs().argmax(1, keepdim=True))
        with torch.no_grad():
            encoder.components.copy_(components * largest.sign())
            encoder.centre.copy_(self.origin + shift)
        self.variances = values.flip(0).clamp_min(0)
        self.done = torch.ones_like(self.done)
        for buffer in (self.sums, self.scatter, self.count):
            buffer.zero_()

    def converged(self) -> bool:
        return bool(self.done)

    def errors(self, encoder: Encoder, x: Tensor) -> Tensor:
        with torch.no_grad():
            return (encoder.restored(encoder(x)) - self.flat(x)).square().mean(1)

    def trivial(self, batch: Batch) -> dict[str, Tensor]:
        """The error of the training part's mean sample."""
        return {"loss": (self.flat(batch["all"]["x"]) - self.origin).square().mean().float()}

    def complete(self, encoder: Encoder, x: Tensor) -> Tensor:
        """What the components keep of samples, (B, *shape)."""
        return encoder.back(encoder(x)).to(x.dtype)

    def score(self, encoder: Encoder, batch: Batch) -> Tensor:
        """How badly each sample is given back, (B,)."""
        return self.errors(encoder, batch["all"]["x"])

    def figure(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        x = batch["all"]["x"]
        return {"input": x, "output": self.complete(encoder, x)}

    def audit(self) -> list[dict[str, Any]]:
        """The variance of each component, and the share that it explains with those before it."""
        shares = self.variances.cumsum(0) / self.variances.sum().clamp_min(1e-300)
        rows = enumerate(zip(self.variances.tolist(), shares.tolist(), strict=True), 1)
        return [{"component": i, "variance": v, "explained": s} for i, (v, s) in rows] if self.done else []

    def chart(self) -> dict[str, dict[float, float]]:
        """The share of the variance that so many components explain."""
        found = {row["component"]: row["explained"] for row in self.audit()}
        return {"share of variance by number of components": found} if found else {}
