"""A named list of operations, run with as few passes over the pixels as their order allows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sslrun.augment.colour import Colour, chain, changes, mean_colour, moved, recolour
from sslrun.augment.geometry import Geometry, warp
from sslrun.augment.op import Op, Params, on_rows
from sslrun.contracts import UserError
from sslrun.rng import Joint, Rng

PIECE = 2**20  # numbers in a piece of a batch: 4 MiB stay in a processor's cache, and calls are few


class Recipe(nn.Module):
    """Runs operations in order; adjacent geometry costs one resampling, adjacent colour one matrix product.

    `size` is the side of the output images (None: that of the operation that states one, else of the input); it is
    reached in the first geometric operation. Every operation has draws of its own, which do not depend on what else
    the recipe holds.
    """

    def __init__(self, ops: Sequence[Op], size: int | None = None):
        super().__init__()
        self.ops = nn.ModuleList(ops)
        sizes = [op.size for op in ops if isinstance(op, Geometry) and op.size]
        self.size = size or (sizes[0] if sizes else None)
        if self.size is not None and self.size < 1:
            raise UserError(f"size={self.size} is no side of an image; give a positive number of pixels.")

        first = next((i for i, op in enumerate(ops) if isinstance(op, Geometry)), None)
        self.resizes = self.size is not None and first is None  # nothing that could reach the size on its way
        self.first = first
        seen: Counter[str] = Counter()
        self.names = []
        for op in ops:
            name = type(op).__name__
            self.names.append((name, seen[name]))
            seen[name] += 1
        self.runs = runs_of(list(ops))

    def prepare(self, x_train: Tensor) -> None:
        """Hands the training part to every operation, once."""
        for op in self.ops:
            op.prepare(x_train)

    @torch.no_grad()  # a training step would pay for the bookkeeping of every small operation
    def forward(self, x: Tensor, rng: Rng) -> Tensor:
        """`x` (B, C, H, W) in [0, 1] or (B, D); `rng` draws for the same B samples."""
        for op in self.ops:
            op.check(x)
        if len(x) == 0:
            raise UserError("augmentation: the batch holds no sample; lower batch_size or turn drop_last off.")
        if self.resizes:
            x = pieces(self.resize, x, [])
        params, shape = [], x.shape
        for i, (op, name) in enumerate(zip(self.ops, self.names, strict=True)):
            params.append(op.draw(rng.child(*name), shape))
            if i == self.first and self.size:
                shape = torch.Size([*shape[:2], self.size, self.size])
        for run in self.runs:
            chosen = [params[i] for i in run]
            if self.ops[run[0]].whole:
                x = self.ops[run[0]].apply(x, **chosen[0])
            else:
                x = pieces(lambda part, given, run=run: self.run(part, run, given), x, chosen)
        return x

    def views(self, x: Tensor, rngs: Sequence[Rng]) -> Sequence[Tensor]:
        """A view for each of `rngs`, the one that a call with it would give.

        What small images cost is calls rather than pixels, and these are the same for one view and for several.
        """
        if len(rngs) == 1:
            return [self(x, rngs[0])]
        return self(x.repeat(len(rngs), *(1,) * (x.dim() - 1)), Joint(*rngs)).chunk(len(rngs))

    def resize(self, x: Tensor, params: list[Params]) -> Tensor:
        return warp(x, torch.eye(3, device=x.device).expand(len(x), 3, 3), (self.size, self.size), "border", True)

    def run(self, x: Tensor, run: list[int], params: list[Params]) -> Tensor:
        """Operations `run` on one piece, fusing neighbours."""
        at, given = 0, x
        while at < len(run):
            op = self.ops[run[at]]
            last = at + 1
            if isinstance(op, Geometry):
                last = self.geometry_end(run, at)
                x = self.move(x, run[at:last], params[at:last])
            elif isinstance(op, Colour):
                while last < len(run) and isinstance(self.ops[run[last]], Colour) and self.ops[run[last - 1]].linear:
                    last += 1
                x = self.colour(x, run[at:last], params[at:last], mine=x is not given)
            else:
                x = op.apply(x, **params[at])
            at = last
        return x

    def geometry_end(self, run: list[int], at: int) -> int:
        """Where the group of geometric operations that starts at `at` ends: at the first other padding."""
        padding = self.ops[run[at]].padding
        for last in range(at + 1, len(run)):
            op = self.ops[run[last]]
            if not isinstance(op, Geometry) or (padding and op.padding and op.padding != padding):
                return last
            padding = padding or op.padding
        return len(run)

    def move(self, x: Tensor, group: list[int], params: list[Params]) -> Tensor:
        ops = [self.ops[i] for i in group]
        matrix = params[0]["matrix"]
        for given in params[1:]:
            matrix = matrix @ given["matrix"]
        size = (self.size, self.size) if self.size and self.first in group else x.shape[-2:]
        padding = next((op.padding for op in ops if op.padding), "border")
        return warp(x, matrix, size, padding, all(op.separable for op in ops))

    def colour(self, x: Tensor, group: list[int], params: list[Params], mine: bool) -> Tensor:
        """Matrices of the group in one product; only its last operation may have a part that is not linear.

        `mine` is true where `x` belongs to the recipe, which may write into it.
        """
        ops = [self.ops[i] for i in group]
        mean = mean_colour(x) if any(op.needs_mean for op in ops) else x.new_zeros(x.shape[:2])
        matrices = []
        for i, (op, given) in enumerate(zip(ops, params, strict=True)):
            matrices.append(op.matrix(mean, **given))
            if any(later.needs_mean for later in ops[i + 1 :]):
                mean = moved(mean, matrices[-1])
        matrix = chain(*matrices)
        if ops[-1].linear and sum(op.p for op in ops) < 0.5:  # few images change: cheaper to copy those out and back
            x = on_rows(x, changes(matrix), recolour, matrix, in_place=mine)
        else:
            x = recolour(x, matrix)
        return ops[-1].rest(x, **params[-1])


def runs_of(ops: list[Op]) -> list[list[int]]:
    """Positions of the operations, cut before and after each that wants the whole batch."""
    runs: list[list[int]] = []
    for i, op in enumerate(ops):
        if runs and not op.whole and not ops[runs[-1][0]].whole:
            runs[-1].append(i)
        else:
            runs.append([i])
    return runs


def pieces(work: Callable[[Tensor, list[Params]], Tensor], x: Tensor, params: list[Params]) -> Tensor:
    """`work` on parts of the batch that fit a CPU's cache, joined; the whole batch at once elsewhere."""
    step = max(1, PIECE // x[0].numel())
    if x.device.type != "cpu" or step >= len(x):
        return work(x, params)
    out = None
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        part = work(x[rows], [{key: value[rows] for key, value in given.items()} for given in params])
        if out is None:
            out = part.new_empty(len(x), *part.shape[1:])
        out[rows] = part
    return out
