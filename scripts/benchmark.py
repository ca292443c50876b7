"""Times sslrun beside the tools it would replace: SimCLR's views, SimCLR's training, and the start of a run.

    python scripts/benchmark.py [--only views|training|startup] [--rounds N] [--seconds S] [--out FILE.json] [--quick]

All contestants of a comparison take turns, in an order that reverses with each round, and what counts is the median
over rounds of the ratio within a round: a busy machine slows both sides alike. Peers come with
`pip install "sslrun[bench]"`; those that are missing are left out, and the table says so.

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
import json
from pathlib import Path
from typing import Any

from bench import contestants, startup, table, training, views
from bench.common import installed


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
        return startup.first_step()
    if args.train:
        contestant, network, pixels, folder = args.train
        given = (network, Path(pixels), Path(folder), args.seconds)
        own = contestant == "sslrun"
        rate = contestants.train_sslrun(*given) if own else contestants.train_lightly(contestant, *given)
        args.out.write_text(json.dumps(rate))
        return

    rounds, seconds = (1, 0.0) if args.quick else (args.rounds, args.seconds)
    results: dict[str, Any] = {"machine": table.machine(), "quick": args.quick}
    results["skipped"] = [peer for peer in ("kornia", "lightly") if not installed(peer)]
    if args.only in (None, "startup"):
        results["startup"] = startup.measure_startup(rounds)
    if args.only in (None, "training"):
        results["training"] = training.measure_training(rounds, seconds, args.quick)
    if args.only in (None, "views"):
        results["views"] = views.measure_views(3 * rounds, 0.0 if args.quick else 0.5, args.quick)
    results["targets"] = table.judge(results)
    table.show(results)
    if args.out:
        args.out.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
