"""One training of one contestant, in this process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.processes import processor_seconds
from bench.views import lightly_transform

BATCH = 128


def stopwatch(seconds: float) -> Any:
    """A callback that stops training `seconds` after the warm-up, and knows the rates between."""
    import lightning.pytorch as pl

    warm_up = 3

    class Stopwatch(pl.Callback):
        def __init__(self) -> None:
            self.ends: list[tuple[float, float]] = []  # clock and processor seconds at the end of each step

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            self.ends.append((time.perf_counter(), processor_seconds(os.getpid())))
            counted = self.ends[warm_up - 1 :]
            if len(counted) > 2 and counted[-1][0] - counted[0][0] > seconds:
                trainer.should_stop = True

        def rates(self) -> tuple[float, float]:
            """Pictures per second of the clock and of the processor."""
            counted = self.ends[warm_up - 1 :]
            clock, processor = (last - first for first, last in zip(counted[0], counted[-1], strict=True))
            done = BATCH * (len(counted) - 1)
            return done / clock, done / max(processor, 0.01)  # the system counts hundredths

    return Stopwatch()


def train_sslrun(network: str, pixels: Path, folder: Path, seconds: float) -> tuple[float, float]:
    """A run as the command line would start it, up to the end of training."""
    import importlib

    from sslrun import device
    from sslrun.compose import compose

    cfg, _ = compose(
        [
            "data=image_arrays",
            f"data.path={pixels}",
            "method=simclr",
            f"encoder={network}",
            f"batch_size={BATCH}",
            "eval.looks=0",
        ]
    )
    module = importlib.import_module("sslrun.run")
    watch, fit = stopwatch(seconds), module.fit
    module.fit = lambda *args, callbacks, **kwargs: fit(*args, callbacks=[*callbacks, watch], **kwargs)
    experiment = module.Experiment(cfg, module.RunFolder(folder), device.resolve(cfg))
    experiment.fit(resume=False)
    return watch.rates()


def train_lightly(contestant: str, network: str, pixels: Path, folder: Path, seconds: float) -> tuple[float, float]:
    """SimCLR as in lightly's `examples/pytorch_lightning/simclr.py`, on pictures in memory."""
    import numpy as np
    import pytorch_lightning as pl
    import torch
    import torchvision
    from lightly.data import LightlyDataset
    from lightly.data.multi_view_collate import MultiViewCollate
    from lightly.loss import NTXentLoss
    from lightly.models import ResNetGenerator
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform
    from PIL import Image
    from torch import nn

    class Pictures(torch.utils.data.Dataset):
        def __init__(self) -> None:
            self.pixels = np.load(pixels)["x_train"]
            self.transform: Callable[..., Any] | None = None  # lightly's dataset sets it

        def __len__(self) -> int:
            return len(self.pixels)

        def __getitem__(self, i: int) -> tuple[Any, int]:
            picture = Image.fromarray(self.pixels[i])
            return self.transform(picture) if self.transform else picture, 0

    def backbone() -> tuple[nn.Module, int]:
        if network == "cnn":
            from sslrun.contracts import DataSpec
            from sslrun.encoders.cnn import Cnn

            cnn = Cnn(DataSpec("made up", "image", (3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3))
            return cnn, cnn.dim
        if contestant == "lightly_imagenet_stem":
            return nn.Sequential(*list(torchvision.models.resnet18().children())[:-1]), 512
        return nn.Sequential(*list(ResNetGenerator("resnet-18").children())[:-1], nn.AdaptiveAvgPool2d(1)), 512

    class SimCLR(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, dim = backbone()
            as_documented = contestant == "lightly_imagenet_stem"
            self.head = SimCLRProjectionHead(dim, *((2048, 2048) if as_documented else (512, 128)))
            self.criterion = NTXentLoss()

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            (x0, x1), _, _ = batch
            z0, z1 = (self.head(self.backbone(x).flatten(start_dim=1)) for x in (x0, x1))
            return self.criterion(z0, z1)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.06)

    transform = SimCLRTransform(input_size=32) if contestant == "lightly_imagenet_stem" else lightly_transform(32)
    loader = torch.utils.data.DataLoader(
        LightlyDataset.from_torch_dataset(Pictures(), transform=transform),
        batch_size=BATCH,
        collate_fn=MultiViewCollate(),
        shuffle=True,
        drop_last=True,
        num_workers=2,
    )
    watch = stopwatch(seconds)
    watch.__class__ = type("Stopwatch", (pl.Callback,), dict(vars(type(watch))))  # the same one, of lightly's package
    precision = {"precision": "bf16-mixed"} if contestant == "lightly_bf16" else {}
    trainer = pl.Trainer(
        max_epochs=10, devices=1, accelerator="cpu", default_root_dir=folder, callbacks=[watch], **precision
    )
    trainer.fit(SimCLR(), train_dataloaders=loader)
    return watch.rates()
