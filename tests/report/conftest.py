"""Run folders and sweeps as runs leave them, made without training."""

import hashlib
import io
import json
import os
from functools import cache

import pytest
from PIL import Image

VERSIONS = {"sslrun": "0.1.0", "python": "3.11.7", "torch": "2.14.1"}
CLASSIFIERS = ("fixmatch", "supervised")
BUDGETS = (10, 40, 100)


def results_of(method, value, labels=None, references=(0.8, 0.5, 0.6)):
    """Subjects and metrics around one value: a classifier's own, or probes that gain a hundredth with each budget."""
    supervised, random, raw = references
    if method in CLASSIFIERS:
        own = {"model": {"classify/accuracy": value}, "trained": {f"linear@{labels}/accuracy": value - 0.1}}
        others = {s: {f"linear@{labels}/accuracy": v} for s, v in (("random", random), ("raw", raw))}
        return own | others | {"supervised": {"classify/accuracy": supervised}}
    own = {f"linear@{n}/accuracy": value + 0.01 * i for i, n in enumerate(BUDGETS)}
    others = {s: {f"linear@{n}/accuracy": v for n in BUDGETS} for s, v in (("random", random), ("raw", raw))}
    return {"trained": own} | others | {"supervised": {f"classify@{n}/accuracy": supervised for n in BUDGETS}}


@cache
def noise():
    """A picture of the size of a t-SNE's, which compresses worse than any."""
    out = io.BytesIO()
    Image.effect_noise((700, 560), 80).convert("RGB").save(out, "PNG")
    return out.getvalue()


class Maker:
    """`make(method, seed, value, ...)` writes a finished run; `unfinished`, `sweep` and `write` make others."""

    def __init__(self, root):
        self.root, self.clock = root, 1_700_000_000

    def __call__(self, method="simclr", seed=0, value=0.9, *, folder=None, status="finished", settings=(), **meta):
        labels, data = meta.pop("labels", None), meta.pop("data", "digits")
        path = self.root / (folder or f"{method}/{data}/{self.clock}")
        results = meta.pop("results", None) or results_of(
            method, value, labels, meta.pop("references", (0.8, 0.5, 0.6))
        )
        flat = {
            "epochs": 300 if method == "fixmatch" else 80,
            "batch_size": 64 if method == "fixmatch" else 256,
            "labels": labels,
            "seed": seed,
            "split_seed": seed,
            "data._target_": f"sslrun.data.image.{data}",
            f"method.{method}._target_": f"sslrun.methods.{method}",
            "optimizer.lr": 0.03 if method == "fixmatch" else 0.001,
            **dict(settings),
        }
        primary = "classify/accuracy" if method in CLASSIFIERS else "linear@40/accuracy"
        how = {"selected_on": "4-fold cross-validation in the training rows used", "subjects": {"trained": {"C": 1.0}}}
        metrics = {
            "status": status,
            "method": method,
            "data": data,
            "seed": seed,
            "split_seed": seed,
            "labels": labels,
            "settings": flat,
            "split_hash": hashlib.sha256(f"{data} {seed}".encode()).hexdigest()[:16],
            "versions": VERSIONS,
            "precision": "fp32",
            "threads": 2,
            "world": 1,
            "wall_s": 30.0 + seed,
            "training_s": 10.0 + seed,
            "samples_per_s": 4000.0,
            "peak_rss_mb": 900.0,
            "primary": primary,
            "harm": "unknown",
            "protocol": {f"linear@{n}": how for n in (*BUDGETS, labels)},
            "results": results,
            **meta,
        }
        self.write(path, status, metrics=metrics)
        return path

    def write(self, path, status, reason="", metrics=None, config="method: {simclr: {}}\n", told=()):
        path.mkdir(parents=True)
        (path / "config.yaml").write_text(config)
        (path / "status.json").write_text(json.dumps({"status": status, "reason": reason, "step": 3, **dict(told)}))
        if metrics is not None:
            (path / "metrics.json").write_text(json.dumps(metrics))
            self.clock += 60  # later runs are newer, whatever the file system's clock resolves
            os.utime(path / "metrics.json", (self.clock, self.clock))

    def unfinished(self, status, reason="", folder=None, **told):
        path = self.root / (folder or f"unfinished/{status}")
        config = (
            "seed: 1\nsplit_seed: 1\nlabels: null\ndata: {_target_: sslrun.data.image.digits}\n"
            "method:\n  simclr: {_target_: sslrun.methods.simclr, temperature: 0.2}\n"
        )
        self.write(path, status, reason, config=config, told=told)
        return path

    def sweep(self, name, axes, jobs, command="sslrun -m method=simclr,fixmatch labels=10,40 seed=0,1"):
        """`jobs` are pairs of a folder and its cells."""
        told = [{"id": str(i), "folder": f, "overrides": [], "cells": cells} for i, (f, cells) in enumerate(jobs)]
        path = self.root / name / "sweep.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"name": name, "command": command, "axes": axes, "sslrun": "0.1.0", "jobs": told}))
        return path.parent

    def curves(self, path, values, cut=False):
        """A metrics.csv with these validation accuracies, a tsne.png, and what was typed."""
        lines = ["epoch,step,name,value"]
        for i, value in enumerate(values, 1):
            lines += [f"{i},{10 * i},train/loss,{1 / i}", f"{i},{10 * i},validation/knn_accuracy,{value}"]
        text = "\n".join(lines) + "\n"
        (path / "metrics.csv").write_text(text[:-9] if cut else text)
        (path / "figures").mkdir()
        (path / "figures/tsne.png").write_bytes(noise())
        (path / ".hydra").mkdir()
        metrics = json.loads((path / "metrics.json").read_text())
        typed = [f"method={metrics['method']}", f"seed={metrics['seed']}"]
        (path / ".hydra/overrides.yaml").write_text("".join(f"- {t}\n" for t in typed))


@pytest.fixture
def make(tmp_path):
    return Maker(tmp_path / "outputs")


@pytest.fixture
def swept(make):
    """A sweep of simclr (one job for all numbers of labels) and fixmatch (one for each), two seeds, one job waiting."""
    jobs = []
    for seed in (0, 1):
        folder = f"method=simclr,seed={seed}"
        jobs.append((folder, [{"method": "simclr", "labels": n, "seed": str(seed)} for n in ("10", "40")]))
        make("simclr", seed, 0.85 + 0.02 * seed, folder=f"two/{folder}")
        for n in ("10", "40"):
            folder = f"method=fixmatch,labels={n},seed={seed}"
            jobs.append((folder, [{"method": "fixmatch", "labels": n, "seed": str(seed)}]))
            if (n, seed) != ("40", 1):
                make("fixmatch", seed, 0.9, labels=int(n), folder=f"two/{folder}")
    axes = {"method": ["simclr", "fixmatch"], "labels": ["10", "40"], "seed": ["0", "1"]}
    return make.sweep("two", axes, jobs)


@pytest.fixture
def cell():
    """`cell(comparison, row, column)` is one cell's content, by the words of its row and column."""

    def get(comparison, row, column="", grid=0):
        for line in comparison.grids[grid].rows:
            for at, shown in line.cells.items():
                if " ".join((*line.labels, line.note)).strip() == row and " ".join(at) == column:
                    return shown
        raise KeyError(row, column)

    return get
