"""The pictures of a run: the views as the network sees them, each task's inputs and answers, and the features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sslrun.beliefs import Beliefs, bins
from sslrun.contracts import DataSpec
from sslrun.data.module import Data, Part
from sslrun.evaluate.judge import Judge, Splits
from sslrun.evaluate.knn import classify
from sslrun.evaluate.scores import guesses
from sslrun.learner import Learner
from sslrun.nn.gather import alone
from sslrun.nn.modes import evaluating
from sslrun.profiles import Profile
from sslrun.record import figures
from sslrun.record.figures import Picture
from sslrun.record.gallery import Gallery
from sslrun.streams import as_seen_by, streams_of

SHOWN = 8  # samples in a picture of views
COLUMNS = 40  # of a profile, the most telling ones
POINTS = 1000  # samples in t-SNE and in the projector

Own = tuple[str, Tensor]  # a method's predictions: `class` or `cluster`, and their probabilities (N, K)


def views(learner: Learner, gallery: Gallery) -> None:
    """What training reads: clean samples, and every view of them."""
    data = learner.data
    streams = streams_of(learner.objectives.values())
    plan = next(data.validation(data.train, streams, limit=SHOWN))
    batch = data.batch(plan, data.train, learner.views, "cpu")
    rows = {"sample": batch[streams[0]]["x"]}
    for stream in streams:
        for view, recipe in sorted(learner.views.get(stream, ())):
            name = view if len(streams) > 1 and view == recipe else f"{view} ({recipe})"
            rows[name if len(streams) == 1 else f"{stream} {name}"] = batch[stream][view, recipe]
    gallery.show("views", draw(rows, data.spec), 0)


@torch.no_grad()
def tasks(learner: Learner, gallery: Gallery, step: int) -> None:
    """Inputs, targets and answers of the objectives that have some to show, on samples that were not trained on."""
    data = learner.data
    part = data.val or data.train
    with evaluating(learner), alone():
        for name, objective in learner.objectives.items():
            if objective.figure is None:
                continue
            plan = next(data.validation(part, objective.streams, limit=SHOWN))
            batch = as_seen_by(objective, data.batch(plan, part, learner.views, learner.device))
            gallery.show(f"task_{name}", draw(objective.figure(learner.encoder, batch), data.spec), step)


def beliefs(found: Beliefs | None, gallery: Gallery, spec: DataSpec, step: int) -> None:
    """What the classifier guesses of unlabelled samples, against the prior, and how far to trust its confidence."""
    if found is not None:
        confidence, reliability = found.guesses.amax(1), bins(found.p, found.y)
        picture = figures.beliefs(found.shares, found.prior, confidence, reliability, spec.classes)
        gallery.show("beliefs", picture, step)


def draw(values: dict[str, Tensor], spec: DataSpec) -> Picture | None:
    """Pictures side by side, tables as colours (in standard deviations); whole numbers (N,) become captions."""
    count = max(map(len, values.values()))
    chosen = torch.linspace(0, count - 1, min(SHOWN, count)).long()
    values = {name: x.cpu()[chosen] for name, x in values.items()}
    words = {name: x for name, x in values.items() if x.dim() == 1}
    shown = {name: x for name, x in values.items() if name not in words}
    captions = [" / ".join(str(int(x[i])) for x in words.values()) for i in range(len(chosen))]
    if all(x.dim() == 4 for x in shown.values()):
        return figures.grid(shown, captions if words else (), " / ".join(words))
    if all(x.dim() == 2 for x in shown.values()):
        mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
        return figures.heat({k: (x - mean) / std if x.shape[1:] == mean.shape else x for k, x in shown.items()})
    return None


def features(
    gallery: Gallery, splits: Splits, data: Data, parts: dict[str, Part | None], own: Own | None, what: str, step: int
) -> None:
    """The features of `what`: t-SNE, principal components, the projector, and what nearest neighbours confuse.

    Points are coloured by class, and by `own`, the method's predictions of the test part.
    """
    name = next(n for n in ("test", "val", "train") if splits[n] is not None)
    split, part, bank = splits[name], parts[name], splits["train"]
    spec, rows = data.spec, _spread(len(split.labels))
    shown, labels = split.features[rows], split.labels[rows]
    told = _told(own, rows, spec) if own is not None and name == "test" else {}
    if len(rows) > 10:
        where = f"{data.name}, {name} samples"
        points = _tsne(shown)
        gallery.show("tsne", figures.scatter(points, labels, spec.classes, f"{where}, t-SNE of {what}"), step)
        if told:
            gallery.show("tsne_model", figures.scatters(points, told, f"{where}, t-SNE of {what}"), step)
        points, shares = _principal(shown)
        heads = [f"component {i}: {100 * share:.0f} % of the variance" for i, share in enumerate(shares, 1)]
        panels = ({"class": (labels, spec.classes)} if spec.num_classes or not told else {}) | told
        gallery.show("pca", figures.scatters(points, panels, f"{where}, principal components of {what}", heads), step)
    words = [spec.classes[y] if y >= 0 else "none" for y in labels.tolist()]
    columns = {"class": words, "index": split.index[rows].tolist()} | {k: v.tolist() for k, (v, _) in told.items()}
    pictures = part.inputs(rows) if len(spec.shape) == 3 else None
    gallery.project(shown, columns, pictures)
    known = bank.labels >= 0
    if spec.num_classes > 1 and not spec.normal and known.any() and name != "train":
        guess = classify(bank.features[known], bank.labels[known], split.features, spec.num_classes)
        who = "k nearest neighbours of the features"
        confusion(gallery, "confusion_knn", guess, split.labels, data, name, who, step)


def confusion(
    gallery: Gallery, name: str, predicted: Tensor, labels: Tensor, data: Data, part: str, who: str, step: int
) -> None:
    """Truth by prediction, in per cent of each class, of the samples of a part."""
    if not (labels >= 0).any():
        return
    title = f"{data.name}, {part} samples, {who}; % of each class"
    gallery.show(name, figures.confusion(predicted.cpu(), labels.cpu(), data.spec.classes, title), step)


def profile(gallery: Gallery, name: str, found: Profile, step: int) -> None:
    """How far each cluster of a method lies from all rows in each column of the table, with its own means in words."""
    strength = found.deviation.abs().nan_to_num(0.0).amax(0)
    columns = strength.topk(min(COLUMNS, len(strength))).indices.sort().values
    words = [[found.word(i, j) for j in columns.tolist()] for i in range(len(found.names))]
    rows = [f"{cluster} ({size:,} rows)" for cluster, size in zip(found.names, found.sizes, strict=True)]
    heads = [found.fields[j].name for j in columns.tolist()]
    title = f"clusters of {name}: mean or commonest value of each column\ncolour: standard deviations from all rows"
    gallery.show(f"profile_{name}", figures.profile(found.deviation[:, columns], words, rows, heads, title), step)


def segments(gallery: Gallery, judge: Judge, predict: Callable[[Any], Tensor], step: int) -> None:
    """The picture whose pixels the data are, beside the groups that the method makes of them."""
    height, width = judge.data.raster
    colour, group = torch.zeros(height * width, 3), torch.full((height * width,), -1)
    for part in filter(None, judge.parts.values()):
        colour[part.index] = part.inputs(torch.arange(len(part)))[:, :3]
        group[part.index] = guesses(judge.probabilities(predict, part))
    picture = figures.segments(colour.view(height, width, 3).numpy(), group.view(height, width).numpy())
    gallery.show("segments", picture, step)


def _spread(n: int) -> Tensor:
    return torch.linspace(0, n - 1, min(n, POINTS)).long()


def _told(own: Own, rows: Tensor, spec: DataSpec) -> dict[str, tuple[Tensor, Sequence[str]]]:
    """What a method predicts of these rows, and how sure it is, where that differs from row to row."""
    kind, p = own
    guess, sure = guesses(p)[rows], p[rows].amax(1)
    names = spec.classes if kind == "class" else tuple(map(str, range(p.shape[1])))
    told = {f"the method's own {kind}": (guess, names)}
    return told | ({"confidence": (sure, ())} if float(sure.amax() - sure.amin()) > 1e-6 else {})


def _principal(features: Tensor) -> tuple[Any, list[float]]:
    """Features (N, D) by their first two principal components, (N, 2), and the share of the variance in each."""
    centred = (features - features.mean(0)).double()
    left, size, _ = torch.linalg.svd(centred, full_matrices=False)
    points = torch.zeros(len(features), 2).double()
    points[:, : len(size)] = (left * size)[:, :2]
    shares = torch.zeros(2).double()
    shares[: len(size)] = (size.square() / size.square().sum().clamp_min(1e-300))[:2]
    return points.numpy(), shares.tolist()


def _tsne(features: Tensor) -> Any:
    """t-SNE (van der Maaten and Hinton 2008) to (N, 2), from the first principal components."""
    from sklearn.manifold import TSNE

    x = features.double().numpy()
    perplexity = min(30, (len(x) - 1) / 3)
    start = "pca" if min(x.shape) >= 2 and x.std() > 0 else "random"
    return TSNE(perplexity=perplexity, init=start, random_state=0).fit_transform(x)
