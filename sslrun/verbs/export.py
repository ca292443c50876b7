"""`sslrun export RUN [out=DIR] [format=onnx]`: the encoder as safetensors, and as ONNX when asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from sslrun.contracts import Encoder, UserError
from sslrun.record.encoder import load, read_config
from sslrun.record.folder import open_run
from sslrun.record.summary import console
from sslrun.verbs import USAGE


def main(argv: list[str]) -> None:
    if not argv:
        raise UserError(f"export needs a run folder: {USAGE['export']}.")
    folder = open_run(argv[0])
    given = dict(item.partition("=")[::2] for item in argv[1:])
    unknown = set(given) - {"out", "format", "traceback"}
    kind = given.get("format", "safetensors")
    if unknown or kind not in ("safetensors", "onnx"):
        raise UserError(f"export takes out=DIR and format=safetensors or format=onnx, not {' '.join(argv[1:])}.")
    out = Path(given.get("out", folder / "export"))
    _, spec, where = read_config(folder.path)
    out.mkdir(parents=True, exist_ok=True)
    if kind == "onnx":
        difference = to_onnx(load(folder.path), (2, *spec.shape), out / "model.onnx")
        console().print(f"{out / 'model.onnx'}: differs from the run's encoder by at most {difference:.1e}")
        return
    for name in ("model.safetensors", "config.yaml"):
        shutil.copyfile(where / name, out / name)
    console().print(f"{out / 'model.safetensors'}; in Python: sslrun.load('{out}')")


def to_onnx(encoder: Encoder, shape: tuple[int, ...], path: Path) -> float:
    """Writes an ONNX graph with a free batch axis, and returns the largest difference from the encoder it finds.

    Raises:
        UserError: the extra is not installed.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError("format=onnx needs more packages: pip install 'sslrun[onnx]'.") from error
    sample = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    batch = torch.export.Dim("batch", min=1)
    torch.onnx.export(
        encoder, (sample,), path, input_names=["x"], output_names=["features"], dynamic_shapes=({0: batch},),
        dynamo=True, external_data=False, verbose=False,
    )  # fmt: skip
    ours = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": sample.numpy()})[0]
    with torch.no_grad():
        return float((encoder(sample) - torch.from_numpy(ours)).abs().max())
