"""What objectives read of a batch: its streams, and their views under each one's own names."""

from __future__ import annotations

from collections.abc import Iterable

from sslrun.contracts import Batch, Objective, Stream


def streams_of(objectives: Iterable[Objective]) -> tuple[str, ...]:
    """The union of the streams that these objectives read, in a fixed order."""
    return tuple(sorted({s for o in objectives for s in o.streams}))


def views_of(objectives: Iterable[Objective]) -> dict[str, set[tuple[str, str]]]:
    """The union of the views they read: {stream: {(view, recipe)}}."""
    union: dict[str, set[tuple[str, str]]] = {}
    for objective in objectives:
        for stream, views in objective.views.items():
            union.setdefault(stream, set()).update(views.items())
    return union


def as_seen_by(objective: Objective, batch: Batch) -> Batch:
    """The batch with this objective's streams, its views under their own names."""
    streams = {}
    for name in objective.streams:
        stream = batch[name]
        values = {k: stream[k] for k in ("x", "y", "index")}
        values.update({view: stream[view, recipe] for view, recipe in objective.views.get(name, {}).items()})
        streams[name] = Stream(values, stream.rng)
    return Batch(streams)


def classifies(objective: Objective) -> bool:
    """Whether it learns the data's classes from labels, so that its predictions are what is wanted of the encoder."""
    return objective.predict is not None and objective.predicts == "class" and "labelled" in objective.streams
