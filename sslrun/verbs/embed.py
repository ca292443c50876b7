"""`sslrun embed RUN [out=features.npz] [data.root=DIR]`: features of every sample, as npz or parquet."""

from __future__ import annotations

import io

import numpy as np

from sslrun.contracts import UserError
from sslrun.evaluate import features
from sslrun.record.folder import write_atomically
from sslrun.record.summary import console
from sslrun.verbs.inputs import open_inputs


def main(argv: list[str]) -> None:
    opened = open_inputs(argv, "embed", "features.npz")
    if opened.out.suffix not in (".npz", ".parquet"):
        raise UserError(f"out={opened.out} must end in .npz or .parquet.")
    rows: dict[str, list] = {"features": [], "label": [], "index": [], "part": [], "name": [], "class": []}
    device = opened.device.torch
    for name, part in opened.parts.items():
        title = f"features of the {name} part"
        found = features.extract(
            opened.encoder.to(device),
            lambda i, part=part: part.inputs(i, device),
            len(part),
            device=device,
            title=title,
        )
        rows["features"].append(found["features"].numpy())
        rows["label"].append(part.labels.numpy())
        rows["index"].append(part.index.numpy())
        rows["part"] += [name] * len(part)
        rows["name"] += opened.names[name] or [""] * len(part)
        rows["class"] += opened.classes[name]
    x = np.concatenate(rows["features"])
    columns = {"label": np.concatenate(rows["label"]), "index": np.concatenate(rows["index"])}
    columns |= {key: np.array(rows[key]) for key in ("class", "part", "name")}
    if opened.out.suffix == ".npz":
        buffer = io.BytesIO()
        np.savez_compressed(buffer, features=x, **columns)
        write_atomically(opened.out, buffer.getvalue())
    else:
        _parquet(opened.out, x, columns)
    console().print(f"{x.shape[0]:,} x {x.shape[1]} features in {opened.out}{opened.form}")


def _parquet(path, x: np.ndarray, columns: dict[str, np.ndarray]) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UserError(f"out={path} needs pyarrow: pip install 'sslrun[parquet]', or choose a .npz file.") from error
    width = pa.array(x.reshape(-1)), x.shape[1]
    table = pa.table(
        {"features": pa.FixedSizeListArray.from_arrays(*width), **{k: v.tolist() for k, v in columns.items()}}
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    write_atomically(path, buffer.getvalue())
