"""SimCLR's views: sslrun's recipe beside torchvision on PIL, kornia and lightly, in processor time of one thread."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from bench.common import ROOT, compare, installed, turns

SIZES = {32: 128, 96: 64, 224: 32}  # pixels: pictures in a batch


def recipe_of(size: int) -> list[dict[str, Any]]:
    from omegaconf import OmegaConf

    name = "image224" if size == 224 else "image"
    return OmegaConf.to_container(OmegaConf.load(ROOT / f"conf/augmentation/{name}.yaml"))["contrastive"]


def settings_of(size: int) -> dict[str, dict[str, Any]]:
    """The recipe's operations by name, for the peers to be given the same; blur with its kernel and width in pixels."""
    from torch import Size

    from sslrun.augment.pixels import REFERENCE, GaussianBlur, kernel_radius

    given = {op.pop("_target_").rpartition(".")[2]: op for op in recipe_of(size)}
    blur = GaussianBlur(**given.pop("GaussianBlur"))
    if size >= blur.smallest:
        kernel = 2 * kernel_radius(Size([1, 3, size, size])) + 1
        sigma = tuple(width * size / REFERENCE for width in blur.sigma)
        given["GaussianBlur"] = {"kernel": kernel, "sigma": sigma, "p": blur.p}
    return given


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
        return recipe.views(x, [Rng(0, "view", v, step, total=len(x)) for v in ("view1", "view2")])

    return views


def pil_views(size: int, pictures: list[Any]) -> Callable[[int], Any]:
    """torchvision's own operations, one picture at a time."""
    import torch
    from torchvision.transforms import v2

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
        blur = given["GaussianBlur"]
        ops.append(v2.RandomApply([v2.GaussianBlur(blur["kernel"], blur["sigma"])], blur["p"]))
    view = v2.Compose([*ops, v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    return lambda step: [torch.stack([view(picture) for picture in pictures]) for _ in range(2)]


def kornia_views(size: int, pixels: Any) -> Callable[[int], Any]:
    import kornia.augmentation as K
    from torch import nn

    given = settings_of(size)
    ops = [
        K.RandomResizedCrop((size, size), scale=tuple(given["RandomResizedCrop"]["scale"])),
        K.RandomHorizontalFlip(),
        K.ColorJitter(**given["ColorJitter"]),
        K.RandomGrayscale(p=given["Grayscale"]["p"]),
    ]
    if "GaussianBlur" in given:
        blur = given["GaussianBlur"]
        ops.append(K.RandomGaussianBlur((blur["kernel"],) * 2, blur["sigma"], p=blur["p"]))
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
    jitter, blur = given["ColorJitter"], given.get("GaussianBlur", {"p": 0.0, "sigma": (0.1, 2.0)})
    return SimCLRTransform(
        input_size=size,
        cj_bright=jitter["brightness"],
        cj_contrast=jitter["contrast"],
        cj_sat=jitter["saturation"],
        cj_hue=jitter["hue"],
        gaussian_blur=blur["p"],
        sigmas=blur["sigma"],
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
            for name in turns(list(pools), rounds):
                given = (name, size, 4 if quick else batch, seconds)
                rates[name].append(pools[name].submit(time_views, *given).result())
            results[str(size)] = compare(rates)
    return results
