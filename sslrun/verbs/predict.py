"""`sslrun predict RUN [out=predictions.csv] [data.root=DIR]`: the method's own labels, clusters or completions."""

from __future__ import annotations

import csv
import io

import numpy as np
import torch

from sslrun.contracts import UserError
from sslrun.progress import progress
from sslrun.record.folder import write_atomically
from sslrun.record.summary import console
from sslrun.teacher import recalled
from sslrun.verbs.inputs import open_inputs


def main(argv: list[str]) -> None:
    opened = open_inputs(argv, "predict", "predictions_all.csv")
    encoder = opened.encoder
    able = recalled(opened.folder, opened.cfg, opened.spec, encoder)
    if able is None:
        raise UserError(f"{opened.folder.path} has no checkpoint to predict with; `sslrun embed` gives its features.")
    found = next((o for o in able.values() if o.predict is not None), None)
    if found is None:
        completing = next((o for o in able.values() if o.complete is not None), None)
        if completing is None:
            names = " + ".join(able) or "none"
            raise UserError(
                f"method={names} does not predict; `sslrun embed` gives its features, eval=[linear] a classifier."
            )
        _complete(opened, completing)
        return
    device = opened.device.torch
    encoder.to(device).eval()
    found.to(device)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["index", "part", "name", "label", "confidence"])
    count = 0
    with torch.no_grad():
        for name, part in opened.parts.items():
            files = opened.names[name]
            batches = torch.arange(len(part)).split(512)
            for rows in progress(batches, len(batches), f"predictions on the {name} part"):
                p = found.predict(encoder, part.inputs(rows, device)).cpu()
                for i, row in zip(rows.tolist(), p, strict=True):
                    best = int(row.argmax())
                    classes = opened.spec.classes if found.predicts == "class" else ()
                    label = "" if row.sum() == 0 else classes[best] if classes else best
                    writer.writerow([int(part.index[i]), name, files[i] if files else "", label, f"{row[best]:.4f}"])
                    count += 1
    write_atomically(opened.out, text.getvalue().encode())
    console().print(f"{count:,} predictions in {opened.out}{opened.form}")


def _complete(opened, objective) -> None:
    """Completed samples (imputation, restoration) of every part, as an npz beside the run."""
    out = opened.out.with_suffix(".npz")
    done = {}
    device = opened.device.torch
    encoder = opened.encoder.to(device)
    objective.to(device)
    with torch.no_grad():
        for name, part in opened.parts.items():
            rows = torch.arange(len(part)).split(512)
            shown = progress(rows, len(rows), f"completed samples of the {name} part")
            done[name] = torch.cat([objective.complete(encoder, part.inputs(r, device)).cpu() for r in shown]).numpy()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **done)
    write_atomically(out, buffer.getvalue())
    console().print(f"{sum(map(len, done.values())):,} completed samples in {out}{opened.form}")
