"""SimCLR: two views of a picture attract, all other pictures repel (Chen et al. 2020, arXiv:2002.05709)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sslrun.contracts import Batch, DataSpec, Encoder, Objective
from sslrun.nn.heads import mlp_head
from sslrun.nn.losses import info_nce


class SimCLR(Objective):
    """NT-Xent between two views of each sample, over a projection head that is thrown away afterwards.

    Chen et al. 2020, arXiv:2002.05709. On tables with the `contrastive` recipe of random feature corruption this is
    SCARF (Bahri et al. 2022, arXiv:2106.15147) with both views corrupted.

    Args:
        temperature: of the softmax over similarities; above 0.
        hidden: width of the projection head's hidden layer.
        projection: size of the space in which views are compared.
        recipe: augmentation that makes both views.
    """

    streams = ("all",)

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        temperature: float = 0.5,
        hidden: int = 512,
        projection: int = 128,
        recipe: str = "contrastive",
    ):
        super().__init__(encoder, spec)
        if temperature <= 0:
            raise ValueError(f"temperature={temperature} must be above 0, for example 0.5")
        self.temperature = temperature
        self.views = {"all": {"view1": recipe, "view2": recipe}}
        self.head = mlp_head(encoder.dim, hidden, projection)

    def forward(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        views = torch.cat([batch["all"]["view1"], batch["all"]["view2"]])  # (2B, ...): one pass, one batch norm
        z1, z2 = self.head(encoder(views)).chunk(2)  # (B, P) each
        loss, accuracy = info_nce(z1, z2, self.temperature)
        return {"loss": loss, "accuracy": accuracy}

    def trivial_loss(self, batch: Batch) -> Tensor:
        """That of embeddings which are all alike: one of 2 B - 1 candidates at random."""
        return torch.tensor(math.log(2 * len(batch["all"]) - 1))
