"""Times sslrun beside the tools it would replace: SimCLR's views, SimCLR's training, and the start of a run.

    python scripts/benchmark.py [--only views|training|startup] [--rounds N] [--seconds S] [--out FILE.json] [--quick]

All contestants of a comparison take turns, round after round, and what counts is the median over rounds of the ratio
within a round: a busy machine slows both sides alike. Peers come with `pip install "sslrun[bench]"`; those that are
missing are left out, and the table says so.

Views: one thread and one process for each contestant, from a uint8 batch in memory (PIL images for the tools that read
those) to two float views, by the operations and strengths of `conf/augmentation/image*.yaml`, drawn for every sample.
Seconds are those of the processor, so that other programs of the machine do not count.

Training: SimCLR on 50,000 made-up 32-pixel pictures, batch 128, each contestant in a process of its own. `lightly` is
its documented Lightning recipe with its own CIFAR-10 benchmark's ResNet-18 (3x3 stem without pooling: the same network
as sslrun's), head and transform; `lightly_bf16` is the same under bf16-mixed; `lightly_imagenet_stem` is the example of
its documentation to the letter, torchvision's ResNet-18: its 7x7 stem and pooling shrink a 32-pixel picture to 8 pixels
before the first block, a fifteenth of the multiplications, and is reported, not compared. Two loader workers, for two
cores. In the rows `cnn` both sides train sslrun's small convolutional network. Beside the clock's seconds stand the
processor's, of the loader's workers as well: those are worth more on a machine that has other work, where threads that
wait for each other are slowed beyond proportion.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BATCH = 128
SIZES = {32: 128, 96: 64, 224: 32}  # pixels: pictures in a batch
NETWORKS = {
    "resnet18": ("sslrun", "lightly", "lightly_bf16", "lightly_imagenet_stem"),
    "cnn": ("sslrun", "lightly", "lightly_bf16"),
}
TARGETS = [  # (what, its ratio in the results, at least, aim)
    ("32 px views, times PIL", ("views", "32", "ratios", "pil"), 15, 30),
    ("32 px views, times kornia", ("views", "32", "ratios", "kornia"), 5, 5),
    ("ResNet-18 training, times lightly", ("training", "resnet18", "ratios", "lightly"), 2.5, 3.5),
    ("ResNet-18 training, times lightly in bf16", ("training", "resnet18", "ratios", "lightly_bf16"), 1.3, 2),
    ("CNN training, times lightly", ("training", "cnn", "ratios", "lightly"), 8, 8),
]
LIMITS = [  # (what, its value in the results, at most)
    ("--help, seconds", ("startup", "help_s"), 1.0),
    ("first step beyond importing torch and lightning, seconds", ("startup", "own_s"), 1.5),
]


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def compare(rates: dict[str, list[float]]) -> dict[str, Any]:
    """Medians of `{contestant: rate of each round}`, and of sslrun's rate divided by each other's in the same round."""
    ours = rates["sslrun"]
    others = {k: [a / b for a, b in zip(ours, v, strict=True)] for k, v in rates.items() if k != "sslrun"}
    return {
        "per_second": {k: statistics.median(v) for k, v in rates.items()},
        "ratios": {k: statistics.median(v) for k, v in others.items()},
        "rounds": rates,
    }


# Views


def recipe_of(size: int) -> list[dict[str, Any]]:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(OmegaConf.load(ROOT / f"conf/augmentation/image{size}.yaml"))["contrastive"]


def settings_of(size: int) -> dict[str, dict[str, Any]]:
    """The recipe's operations by name, for the peers to be given the same."""
    return {op.pop("_target_").rpartition(".")[2]: op for op in recipe_of(size)}


def time_views(contestant: str, size: int, batch: int, seconds: float) -> float:
    """Views per processor second."""
    import torch
    from PIL import Image

    torch.set_num_threads(1)
    pixels = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    pictures = [Image.fromarray(p.permute(1, 2, 0).numpy()) for p in pixels]
    views = {
        "sslrun": lambda: sslrun_views(size, pixels),
        "pil": lambda: pil_views(size, pictures),
        "kornia": lambda: kornia_views(size, pixels),
        "lightly": lambda: lightly_views(size, pictures),
    }[contestant]()
    views(0)
    began, done = time.process_time(), 0
    while (spent := time.process_time() - began) < seconds or not done:
        done += 1
        views(done)
    return 2 * batch * done / spent


def sslrun_views(size: int, pixels: Any) -> Callable[[int], Any]:
    from hydra.utils import instantiate

    from sslrun.augment.recipe import Recipe
    from sslrun.device import keep_freed_memory
    from sslrun.rng import Rng

    keep_freed_memory()  # as every run does
    recipe = Recipe([instantiate(op, _convert_="all") for op in recipe_of(size)])

    def views(step: int) -> Any:
        x = pixels.float().div_(255)
        return [recipe(x, Rng(0, "view", v, step, total=len(x))) for v in ("view1", "view2")]

    return views


def pil_views(size: int, pictures: list[Any]) -> Callable[[int], Any]:
    """torchvision's own operations, one picture at a time."""
    import torch
    from torchvision.transforms import v2

    from sslrun.augment.pixels import kernel_radius

    given = settings_of(size)
    jitter = given["ColorJitter"]
    p = jitter.pop("p")
    ops = [
        v2.RandomResizedCrop(size, scale=given["RandomResizedCrop"]["scale"]),
        v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.ColorJitter(**jitter)], p),
        v2.RandomGrayscale(given["Grayscale"]["p"]),
    ]
    if "GaussianBlur" in given:
        kernel = 2 * kernel_radius(torch.Size([1, 3, size, size])) + 1
        blur = given["GaussianBlur"]
        ops.append(v2.RandomApply([v2.GaussianBlur(kernel, blur["sigma"])], blur["p"]))
    view = v2.Compose([*ops, v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    return lambda step: [torch.stack([view(picture) for picture in pictures]) for _ in range(2)]


def kornia_views(size: int, pixels: Any) -> Callable[[int], Any]:
    import kornia.augmentation as K
    from torch import nn

    from sslrun.augment.pixels import kernel_radius

    given = settings_of(size)
    ops = [
        K.RandomResizedCrop((size, size), scale=tuple(given["RandomResizedCrop"]["scale"])),
        K.RandomHorizontalFlip(),
        K.ColorJitter(**given["ColorJitter"]),
        K.RandomGrayscale(p=given["Grayscale"]["p"]),
    ]
    if "GaussianBlur" in given:
        kernel = 2 * kernel_radius(pixels.shape) + 1
        blur = given["GaussianBlur"]
        ops.append(K.RandomGaussianBlur((kernel, kernel), tuple(blur["sigma"]), p=blur["p"]))
    view = nn.Sequential(*ops)

    def views(step: int) -> Any:
        x = pixels.float().div_(255)
        return [view(x) for _ in range(2)]

    return views


def lightly_views(size: int, pictures: list[Any]) -> Callable[[int], Any]:
    import torch

    both = lightly_transform(size)

    def views(step: int) -> Any:
        first, second = zip(*(both(picture) for picture in pictures), strict=True)
        return torch.stack(first), torch.stack(second)

    return views


def lightly_transform(size: int) -> Any:
    from lightly.transforms import SimCLRTransform

    given = settings_of(size)
    jitter = given["ColorJitter"]
    return SimCLRTransform(
        input_size=size,
        cj_bright=jitter["brightness"],
        cj_contrast=jitter["contrast"],
        cj_sat=jitter["saturation"],
        cj_hue=jitter["hue"],
        gaussian_blur=given["GaussianBlur"]["p"] if "GaussianBlur" in given else 0.0,
        normalize=None,
    )


def measure_views(rounds: int, seconds: float, quick: bool) -> dict[str, Any]:
    peers = [
        name for name, package in (("pil", "PIL"), ("kornia", "kornia"), ("lightly", "lightly")) if installed(package)
    ]
    context = multiprocessing.get_context("spawn")
    results = {}
    with contextlib.ExitStack() as stack:
        pools = {n: stack.enter_context(ProcessPoolExecutor(1, context)) for n in ("sslrun", *peers)}
        for size, batch in SIZES.items():
            rates: dict[str, list[float]] = {name: [] for name in pools}
            for _ in range(rounds):
                for name, pool in pools.items():
                    given = (name, size, 4 if quick else batch, seconds)
                    rates[name].append(pool.submit(time_views, *given).result())
            results[str(size)] = compare(rates)
    return results


# Training: this script starts itself once for each contestant and round


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


def make_pictures(path: Path, number: int) -> None:
    """Random pictures with some structure, (number, 32, 32, 3) 8-bit, of ten made-up classes."""
    import numpy as np

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (number, 4, 4, 3), dtype=np.uint8)
    np.savez(path, x_train=coarse.repeat(8, 1).repeat(8, 2), y_train=np.arange(number) % 10)


def processes(root: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended meanwhile
        children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def processor_seconds(root: int) -> float:
    """What a process and its living descendants have computed."""
    total = 0
    for pid in processes(root):
        with contextlib.suppress(OSError):
            total += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return total / os.sysconf("SC_CLK_TCK")


def memory_mb(root: int) -> float:
    """Memory of a process and its descendants, shared pages counted once; 0 where /proc does not say."""
    total = 0
    for pid in processes(root):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def train(contestant: str, network: str, pixels: Path, seconds: float) -> tuple[float, float, float]:
    """Pictures per clock and processor second, and peak memory in MB, of one contestant in processes of its own."""
    with tempfile.TemporaryDirectory() as folder:
        log, answer = Path(folder) / "log", Path(folder) / "answer"
        command = [sys.executable, __file__, "--train", contestant, network, str(pixels), folder]
        with open(log, "w") as out:
            command += ["--seconds", str(seconds), "--out", str(answer)]
            child = subprocess.Popen(command, stdout=out, stderr=out)
            peak = 0.0
            while child.poll() is None:
                peak = max(peak, memory_mb(child.pid))
                time.sleep(0.5)
        if child.returncode:
            raise RuntimeError(f"{contestant} failed:\n{log.read_text()[-3000:]}")
        return *json.loads(answer.read_text()), peak


def measure_training(rounds: int, seconds: float, quick: bool) -> dict[str, Any]:
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        pixels = Path(folder) / "pictures.npz"
        make_pictures(pixels, 2_000 if quick else 50_000)
        for network in ("cnn",) if quick else NETWORKS:
            names = [n for n in NETWORKS[network] if n == "sslrun" or installed("lightly")]
            clock, processor, peaks = ({name: [] for name in names} for _ in range(3))
            for _ in range(rounds):
                for name in names:
                    for kept, value in zip(
                        (clock, processor, peaks), train(name, network, pixels, seconds), strict=True
                    ):
                        kept[name].append(value)
            results[network] = compare(clock) | {
                "processor": compare(processor),
                "peak_mb": {k: max(v) for k, v in peaks.items()},
            }
    return results


# Start-up


def measure_startup(rounds: int) -> dict[str, Any]:
    def seconds(*command: str) -> float:
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            subprocess.run([sys.executable, *command], cwd=folder, check=True, capture_output=True)
            return time.perf_counter() - began

    spent: dict[str, list[float]] = {"help": [], "imports": [], "first_step": []}
    seconds("-c", "import torch, lightning.pytorch")  # reads the files once
    for _ in range(rounds):
        spent["help"].append(seconds("-m", "sslrun", "--help"))
        spent["imports"].append(seconds("-c", "import torch, lightning.pytorch"))
        spent["first_step"].append(seconds(__file__, "--first-step"))
    command = [sys.executable, "-X", "importtime", "-m", "sslrun", "--help"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in listed.splitlines()}
    own = [a - b for a, b in zip(spent["first_step"], spent["imports"], strict=True)]
    return {
        "help_s": statistics.median(spent["help"]),
        "help_imports_torch": bool({"torch", "lightning"} & imported),
        "imports_s": statistics.median(spent["imports"]),
        "first_step_s": statistics.median(spent["first_step"]),
        "own_s": statistics.median(own),
        "rounds": spent,
    }


def first_step() -> None:
    """The command `sslrun`, which ends as its first training step begins."""
    import importlib

    import lightning.pytorch as pl

    from sslrun.cli import main

    class End(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            os._exit(0)

    module = importlib.import_module("sslrun.run")
    fit = module.fit
    module.fit = lambda *args, callbacks, **kwargs: fit(*args, callbacks=[*callbacks, End()], **kwargs)
    main([])
    raise SystemExit("no training step began")


# Report


def at(results: dict[str, Any], path: tuple[str, ...]) -> Any:
    for key in path:
        results = results.get(key) if isinstance(results, dict) else None
    return results


def judge(results: dict[str, Any]) -> list[dict[str, Any]]:
    verdicts = []
    for what, path, least, aim in TARGETS:
        value = at(results, path)
        if value is not None:
            verdicts.append({"what": what, "value": value, "target": least, "aim": aim, "met": value >= least})
    for what, path, most in LIMITS:
        value = at(results, path)
        if value is not None:
            verdicts.append({"what": what, "value": value, "target": most, "met": value <= most})
    return verdicts


def machine() -> dict[str, Any]:
    packages = ("torch", "torchvision", "lightning", "lightly", "kornia", "pillow")
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "versions": {p: importlib.metadata.version(p) for p in packages if installed("PIL" if p == "pillow" else p)},
    }


def show(results: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("comparison", "contestant", "per second", "sslrun is", "by processor time", "peak MB")
    rows = {f"views, {size} px, one thread": v for size, v in results.get("views", {}).items()}
    rows |= {f"training, {network}": v for network, v in results.get("training", {}).items()}
    for title, found in rows.items():
        for name, rate in found["per_second"].items():
            ratio, peak = found["ratios"].get(name), found.get("peak_mb", {}).get(name)
            own = found.get("processor", {"ratios": {}})["ratios"].get(name)
            ratios = [f"{r:.1f}x" if r else "" for r in (ratio, own)]
            table.add_row(title, name, f"{rate:,.0f}", *ratios, f"{peak:,.0f}" if peak else "")
            title = ""
        table.add_section()
    console = Console(width=110)
    if rows:
        console.print(table)
    if start := results.get("startup"):
        console.print(
            f"--help {start['help_s']:.2f} s ({'imports' if start['help_imports_torch'] else 'without'} torch); first "
            f"step after {start['first_step_s']:.2f} s, {start['own_s']:.2f} s beyond importing torch and lightning"
        )
    for verdict in results["targets"]:
        console.print(
            f"{'met   ' if verdict['met'] else 'missed'} {verdict['what']}: {verdict['value']:.2f}, target "
            f"{verdict['target']}" + (f", aim {verdict['aim']}" if "aim" in verdict else "")
        )
    for peer in results["skipped"]:
        console.print(f'skipped: {peer} is not installed (pip install "sslrun[bench]")', markup=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("views", "training", "startup"))
    parser.add_argument("--quick", action="store_true", help="a smoke run; its numbers mean nothing")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="timed seconds of one training")
    parser.add_argument("--out", type=Path, help="a JSON file for the results")
    parser.add_argument("--train", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--first-step", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.first_step:
        return first_step()
    if args.train:
        contestant, network, pixels, folder = args.train
        given = (network, Path(pixels), Path(folder), args.seconds)
        rate = train_sslrun(*given) if contestant == "sslrun" else train_lightly(contestant, *given)
        args.out.write_text(json.dumps(rate))
        return

    rounds, seconds = (1, 0.0) if args.quick else (args.rounds, args.seconds)
    results: dict[str, Any] = {"machine": machine(), "quick": args.quick}
    results["skipped"] = [peer for peer in ("kornia", "lightly") if not installed(peer)]
    if args.only in (None, "startup"):
        results["startup"] = measure_startup(rounds)
    if args.only in (None, "training"):
        results["training"] = measure_training(rounds, seconds, args.quick)
    if args.only in (None, "views"):
        results["views"] = measure_views(3 * rounds, 0.0 if args.quick else 0.5, args.quick)
    results["targets"] = judge(results)
    show(results)
    if args.out:
        args.out.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
