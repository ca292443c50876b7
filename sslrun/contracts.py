"""What data, encoders, objectives and evaluators promise each other.

Letters in shape comments: B samples, N tokens, D features, K classes, C H W channels, height, width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslrun.errors import Unfit as Unfit  # part of what methods import from here
from sslrun.errors import UserError as UserError
from sslrun.rng import Rng


@dataclass(frozen=True)
class Field:
    """One column of a table (or one channel of a series): its name, kind and size.

    `kind` is `numeric` or `categorical`; `size` is 1 for a number and the number of codes, 0 for missing included,
    for a category, whose codes from 1 on stand for `values`. `weight` is how much its standardised values count.
    """

    name: str
    kind: str = "numeric"
    size: int = 1
    values: tuple[str, ...] = ()
    weight: float = field(default=1.0, repr=False)  # no part of what identifies a table


@dataclass(frozen=True)
class DataSpec:
    """Everything a size or a scale depends on, stated by the data before anything is trained.

    `shape` is one sample's, without the batch; `scale` is the raw value that becomes 1.0 (255 for 8-bit pictures);
    `mean` and `std` are per channel or column, of the training part, after division by `scale`.
    `order` is true where the order of samples carries meaning (time). `normal` are the classes of a one-class split.
    """

    name: str
    modality: str
    shape: tuple[int, ...]
    num_classes: int = 0
    classes: tuple[str, ...] = ()
    level: str = "instance"
    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    fields: tuple[Field, ...] = ()
    normal: tuple[int, ...] = ()


class Stream(dict):
    """One stream of a batch: `x`, `y`, `index` and one key per view."""

    def __init__(self, values: Mapping[str, Any], rng: Callable[..., Rng]):
        super().__init__(values)
        self.rng = rng  # rng(*purpose) -> Rng over this stream's rows

    def __len__(self) -> int:
        return len(self["index"])


class Batch:
    """`batch[stream][key]`, and position-keyed randomness by `batch.rng(purpose)`."""

    def __init__(self, streams: Mapping[str, Stream]):
        self.streams = dict(streams)

    def __getitem__(self, stream: str) -> Stream:
        return self.streams[stream]

    def __iter__(self) -> Iterator[str]:
        return iter(self.streams)

    def rng(self, *purpose: Any, stream: str | None = None) -> Rng:
        """Draws for the rows of `stream` (by default the first one)."""
        return self.streams[stream or next(iter(self.streams))].rng(*purpose)


class Encoder(nn.Module):
    """Turns samples into tokens, and tokens into one feature vector.

    `dim` is the size of both. Inputs are scaled (`x / spec.scale`) but not standardised: an encoder standardises
    with the training part's statistics itself, so that what a user takes away needs no other file.
    `grid` is the token grid of the default input shape (rows and columns of patches, time steps, ...), and `patch` the
    side in pixels of the squares that tokens are made of, where `tokens` can leave some out; 0: it cannot.
    """

    modalities: tuple[str, ...] = ()  # empty: any
    dim: int
    grid: tuple[int, ...] = ()
    patch: int = 0
    isometric: bool = False  # features lie as far apart as inputs do: their scales mean something
    aux_loss: Tensor | None = None

    def __init__(self, spec: DataSpec):
        super().__init__()
        channels = spec.shape[0] if spec.shape else 1
        for name, values, otherwise in (("mean", spec.mean, 0.0), ("std", spec.std, 1.0)):
            self.register_buffer(name, torch.tensor(values or (otherwise,) * channels).float())

    def standardise(self, x: Tensor) -> Tensor:
        """(B, C, ...) to zero mean and unit variance per channel or column."""
        tail = (1,) * (x.dim() - 2)
        return (x - self.mean.view(1, -1, *tail)) / self.std.view(1, -1, *tail)

    def tokens(self, x: Any, keep: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, N, D) and their mask (B, N), true where a token counts (None: all do).

        `keep` (B, M) are the positions to encode, where an encoder can leave tokens out.
        """
        raise NotImplementedError

    def forward(self, x: Any) -> Tensor:
        """The pooled tokens, (B, D)."""
        tokens, mask = self.tokens(x)
        if mask is None:
            return tokens.mean(1)
        weight = mask.unsqueeze(-1).to(tokens.dtype)
        return (tokens * weight).sum(1) / weight.sum(1).clamp_min(1)

    def stages(self, x: Any) -> list[Tensor]:
        """Pooled features of each stage, first to last, each (B, D_i)."""
        return [self(x)]


class Objective(nn.Module):
    """What an encoder is trained for; owns its heads, teachers and queues, and never keeps the encoder.

    Class attributes say what it reads: `modalities` (empty: any), `streams`, and `views`, a dictionary
    `{stream: {view name: recipe}}` that an instance may set from its hyperparameters. `trains` is false where no
    gradient reaches the encoder, which then stays frozen; `whole_epochs` is true where every sample must count once
    per epoch, in a shorter last batch if need be. `cycles` are the equal parts of a run at each of which training
    starts anew, and the learning rate with it. `predicts` names what `predict` returns: a class of the data (`class`)
    or a group of its own making (`cluster`).
    """

    modalities: tuple[str, ...] = ()
    streams: tuple[str, ...] = ("all",)
    views: dict[str, dict[str, str]] = {}
    trains: bool = True
    whole_epochs: bool = False
    cycles: int = 1
    predicts: str = "class"
    horizon: int = 0  # optimiser steps that the run takes, known once training begins: what ramps are shares of

    predict: Callable[[Encoder, Any], Tensor] | None = None  # (B, K) probabilities in fp32; a row of zeros: unknown
    complete: Callable[[Encoder, Any], Any] | None = None  # like x: imputation, restoration
    score: Callable[[Encoder, Batch], Tensor] | None = None  # (B,) per-sample proxy score
    trivial: Callable[[Batch], dict[str, Tensor]] | None = None  # the dictionary of forward, without learning
    examples: Callable[[], list] | None = None  # hand-computed cases
    figure: Callable[[Encoder, Batch], dict[str, Any]] | None = None  # {name: (B, C, H, W) or (B, ...)} to look at
    audit: Callable[[], list[dict[str, Any]]] | None = None  # how the model came about, as rows of a table
    chart: Callable[[], dict[str, dict[float, float]]] | None = None  # the same as curves by name, {x: y}
    facts: Callable[[], dict[str, float]] | None = None  # numbers about the fitted model itself
    remarks: Callable[[], list[str]] | None = None  # what a reader of its results has to know, in sentences
    # index (n,) of training rows without a label, and their probabilities (n, K), where a method solves for just these
    transductive: Callable[[], tuple[Tensor, Tensor]] | None = None
    ema_predict: Callable[[Encoder, Any], Tensor] | None = None  # predict by the averaged weights, where there are

    def __init__(self, encoder: Encoder, spec: DataSpec):
        super().__init__()

    def forward(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        """The loss under `loss`, beside whatever else is worth a curve; changes state in training mode only."""
        raise NotImplementedError

    def trivial_loss(self, batch: Batch) -> Tensor | None:
        """The loss without learning, above 0: several tasks' losses are divided by it. `batch` is a global one."""
        return self.trivial(batch)["loss"] if self.trivial is not None else None

    def prepare(self, data: Any, encoder: Encoder) -> None:
        """Learns statistics from the training part (`data.train`), before the first step; kept in buffers."""

    def after_step(self, encoder: Encoder) -> None:
        """Moves teachers and queues; called inside the optimiser's step, so that no checkpoint lacks it."""

    def after_epoch(self, encoder: Encoder) -> None:
        """Called when every training sample was seen once."""

    def converged(self) -> bool:
        return False

    def exported(self, encoder: Encoder) -> Encoder:
        """The network that is judged and saved: the encoder, or a teacher of it."""
        return encoder


class Predict(Objective):
    """A pretext task: hide something, ask for it back.

    A task writes `make` and `head`, and names the kind of its target. Loss, accuracy, chance and skill
    (1 - loss / trivial loss) are inherited. Kinds: `class` (a class per instance), `classes` (a class per position,
    -1 where none is asked for), `real` (a number per position, NaN where none is asked for), `binary` (0 or 1 per
    position, NaN where none is asked for).
    """

    kind: str = "class"
    num_targets: int = 0  # of a `class` or `classes` target
    stream = "all"

    def make(self, x: Any, rng: Rng) -> tuple[Any, Tensor]:
        """Inputs for the network and their target, from clean samples (B, ...)."""
        raise NotImplementedError

    def answer(self, encoder: Encoder, inputs: Any) -> Tensor:
        """The network's answer: logits (B, ..., K) for classes, numbers like the target otherwise."""
        raise NotImplementedError

    def losses(self, answer: Tensor, target: Tensor) -> Tensor:
        """Loss per sample, (B,): the mean over the positions asked for."""
        answer = answer.float()
        if self.kind in ("class", "classes"):
            flat = F.cross_entropy(answer.flatten(0, -2), target.flatten(), ignore_index=-1, reduction="none")
            asked = (target != -1).flatten(1) if target.dim() > 1 else (target != -1).unsqueeze(1)
        else:
            asked = ~target.isnan()
            aim = torch.where(asked, target, answer.detach().to(target.dtype)).float()
            if self.kind == "binary":
                flat = F.binary_cross_entropy_with_logits(answer, aim.clamp(0, 1), reduction="none")
            else:
                flat = (answer - aim).square()
            asked = asked.flatten(1)
        flat = flat.view(len(target), -1) * asked
        return flat.sum(1) / asked.sum(1).clamp_min(1)  # (B,)

    def forward(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        inputs, target = self.make(self.read(batch), batch[self.stream].rng("make", type(self).__name__))
        answer = self.answer(encoder, inputs)
        return {"loss": self.losses(answer, target).mean(), **self.measures(answer, target)}

    def read(self, batch: Batch) -> Any:
        """The samples that `make` starts from: the one declared view, or the plain ones."""
        views = self.views.get(self.stream, {})
        return batch[self.stream][next(iter(views), "x")]

    def measures(self, answer: Tensor, target: Tensor) -> dict[str, Tensor]:
        if self.kind == "real":
            return {}
        guess = (answer > 0).float() if self.kind == "binary" else answer.argmax(-1)
        asked = ~target.isnan() if self.kind == "binary" else target != -1
        return {"accuracy": (guess == target)[asked].float().mean()}

    def trivial(self, batch: Batch) -> dict[str, Tensor]:
        """Chance for classes; the mean (zero, on standardised targets) for numbers; the base rate for bits."""
        inputs, target = self.make(self.read(batch), batch[self.stream].rng("make", type(self).__name__))
        answer = self.guess(inputs, target)
        return {"loss": self.losses(answer, target).mean(), **self.measures(answer, target)}

    def guess(self, inputs: Any, target: Tensor) -> Tensor:
        """An answer without learning, shaped like `answer`."""
        if self.kind in ("class", "classes"):
            return torch.zeros(*target.shape, self.num_targets, device=target.device)
        return torch.zeros_like(target, dtype=torch.float32)

    def figure(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        """Inputs, and targets beside answers where these are classes or look like the inputs."""
        inputs, target = self.make(self.read(batch), batch[self.stream].rng("make", type(self).__name__))
        if self.kind == "class":
            return {"input": inputs, "target": target, "answer": self.answer(encoder, inputs).argmax(-1)}
        output = {"output": self.complete(encoder, inputs)} if self.complete is not None else {}
        return {"input": inputs, "target": target, **output}

    def score(self, encoder: Encoder, batch: Batch) -> Tensor:
        """The loss of each sample on its own, (B,)."""
        inputs, target = self.make(self.read(batch), batch[self.stream].rng("make", type(self).__name__))
        losses = self.losses(self.answer(encoder, inputs), target)
        return losses.view(-1, len(batch[self.stream])).mean(0)  # a task may make several copies of each sample


@dataclass
class Split:
    """One part of the data as an evaluator sees it; only the fields it asked for are filled.

    `features` (N, D) float32, `labels` (N,) int64 with -1 where unknown, `index` (N,) positions in the data set;
    `budgets` maps a number of labels to rows of this part (training only); `stages` is a list of (N, D_i); `scores`
    are numbers per sample by name, each (N,).
    """

    features: Tensor | None
    labels: Tensor
    index: Tensor
    budgets: dict[int, Tensor] | None = None
    tokens: Tensor | None = None
    stages: list[Tensor] | None = None
    scores: dict[str, Tensor] | None = None
    isometric: bool = False  # as the encoder says of its features; raw inputs are


# An evaluator is a function (train, val, test, spec, **settings) -> {metric: value}, and how under "protocol": {metric:
# {...}}. Attributes: `needs`, the fields of Split that it reads beyond features and labels; `spreads`, true where rows
# without labels are of use to it; `refuse(data, **settings)`, which raises before training.
Evaluator = Callable[..., dict[str, Any]]
