"""DeepCluster: k-means on the features names classes, a network learns these, and so on (Caron et al. 2018)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslrun.contracts import Batch, DataSpec, Encoder, Objective
from sslrun.nn.gather import gather, rank, world
from sslrun.nn.lloyd import lloyd, plus_plus, squared_distances
from sslrun.nn.modes import evaluating
from sslrun.nn.rows import encoded, refuse_more_clusters
from sslrun.rng import seed_of

PASSES, RESTARTS = 20, 3  # of each epoch's k-means: more hardly moves it


class DeepCluster(Objective):
    """Clusters of the features are the classes of the next epoch, learned by a new linear head.

    Caron et al. 2018, arXiv:1807.05520. Before each epoch the features of all training samples, without augmentation,
    are whitened by their principal components and brought to length 1, and k-means gives each sample a class. The head
    is drawn anew, since classes have no names that last. Every class weighs the same in the loss, as the paper's
    uniform sampling has it, so that a large cluster does not swallow the others; an empty one takes over the sample
    that is farthest from its centre.

    Args:
        k: number of clusters; the paper takes ten times as many as it expects classes. null: ten times the data's
            number of classes, and 100 where it names none.
        every: epochs from one clustering to the next, so that the new head learns something in between: the paper's one
            are 5,000 steps.
        components: principal components that are kept at most.
        recipe: augmentation of the samples that are learned from.
    """

    modalities = ("image",)
    predicts = "cluster"

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        k: int | None = None,
        every: int = 10,
        components: int = 256,
        recipe: str = "contrastive",
    ):
        super().__init__(encoder, spec)
        k = k or 10 * spec.num_classes or 100
        if k < 2 or every < 1 or components < 1:
            raise ValueError(f"k={k} must be at least 2, and every={every} and components={components} at least 1")
        self.views = {"all": {"view": recipe}}
        self.k, self.every = k, every
        self.head = nn.Linear(encoder.dim, k)
        self.register_buffer("epoch", torch.zeros((), dtype=torch.long))
        self.register_buffer("label", torch.zeros(0, dtype=torch.long))  # of each sample of the data, -1: none
        self.register_buffer("weight", torch.ones(k))  # of each class
        kept = min(components, encoder.dim)
        self.register_buffer("origin", torch.zeros(encoder.dim, dtype=torch.float64))
        self.register_buffer("directions", torch.zeros(encoder.dim, kept, dtype=torch.float64))
        self.register_buffer("centres", torch.zeros(k, kept, dtype=torch.float64))
        self.register_buffer("inertia", torch.zeros((), dtype=torch.float64))  # of a sample

    def prepare(self, data: Any, encoder: Encoder) -> None:
        self.part, self.seed = data.train, data.seed
        self.label = torch.full((int(data.train.index.max()) + 1,), -1)
        self._cluster(encoder)

    def after_epoch(self, encoder: Encoder) -> None:
        self.epoch += 1
        if self.epoch % self.every == 0:
            self._cluster(encoder)

    def _cluster(self, encoder: Encoder) -> None:
        """Gives every training sample a class, and draws a new head; the same on every process."""
        features = self._features(encoder)
        self.origin, self.directions = whitening(features, self.directions.shape[1])
        z = self.whitened(features)
        draw = torch.Generator().manual_seed(seed_of(self.seed, "deep cluster", int(self.epoch)))
        if not int(self.epoch):
            refuse_more_clusters(z, self.k, f"method.deep_cluster.k={self.k}")
        self.centres, nearest, inertia = lloyd(z, plus_plus(z, self.k, RESTARTS, draw), PASSES)
        self.label[self.part.index.to(self.label.device)] = nearest
        self.inertia = inertia.min() / len(z)
        counts = torch.bincount(nearest, minlength=self.k).to(self.weight)
        self.weight = torch.where(counts > 0, len(z) / ((counts > 0).sum() * counts.clamp_min(1)), 0.0)
        bound = self.head.in_features**-0.5
        with torch.no_grad():
            for parameter in self.head.parameters():
                drawn = torch.rand(parameter.shape, generator=draw) * 2 - 1
                parameter.copy_(drawn * bound)

    def _features(self, encoder: Encoder) -> Tensor:
        """Features of all training samples (N, D) in the order of the part, each process computing its share."""
        device = next(encoder.parameters()).device
        share = torch.arange(len(self.part)).tensor_split(world())[rank()]
        with evaluating(encoder):
            return gather(encoded(encoder, self.part, share, device))

    def whitened(self, features: Tensor) -> Tensor:
        """On the principal components (N, C), each of variance 1, as rows of length 1."""
        return F.normalize((features.double() - self.origin) @ self.directions, dim=1)

    def nearest(self, encoder: Encoder, x: Any) -> Tensor:
        """The cluster that each sample falls into, (B,)."""
        with torch.no_grad():
            z = self.whitened(encoder(x))
        return squared_distances(z, self.centres.unsqueeze(0))[:, 0].argmin(1)

    def forward(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        stream = batch["all"]
        answer = self.head(encoder(stream["view"])).float()  # (B, K)
        target = self.label[stream["index"]] if self.training else self.nearest(encoder, stream["x"])
        losses = F.cross_entropy(answer, target, reduction="none") * self.weight[target]  # (B,)
        hit = (answer.argmax(1) == target).float().mean()
        return {"loss": losses.mean(), "pseudo_accuracy": hit, "inertia": self.inertia.float()}

    def predict(self, encoder: Encoder, x: Any) -> Tensor:
        """The cluster of each sample, (B, K)."""
        return F.one_hot(self.nearest(encoder, x), self.k).float()


def whitening(x: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """The mean of features (N, D), and their leading principal directions over the deviation there, (D, C).

    Directions in which nothing varies are 0.
    """
    origin = x.mean(0)
    values, vectors = torch.linalg.eigh((x - origin).T @ (x - origin) / len(x))  # rising
    values, vectors = values[-components:], vectors[:, -components:]
    varies = values > 1e-6 * values[-1].clamp_min(1e-300)
    return origin, torch.where(varies, vectors / values.clamp_min(1e-300).sqrt(), 0.0)
