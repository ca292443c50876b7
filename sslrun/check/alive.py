"""Whether every term of a method's loss teaches some parameter, and whether averaged networks follow."""

from __future__ import annotations

import torch
from torch import Tensor

from sslrun.build import Built
from sslrun.check.byhand import NOISE
from sslrun.data.loader import Loader
from sslrun.data.plan import Plan
from sslrun.learner import Learner
from sslrun.nn.ema import Ema
from sslrun.streams import as_seen_by, streams_of


def watched(parts: Built, batch_size: int, mu: int, steps: int = 40) -> dict[str, str | None]:
    """{check: complaint, or None where it holds}, from a short training; empty where nothing learns by gradients.

    A term may be silent at first (a threshold that nothing passes yet): it must speak within these steps.
    """
    learner = Learner(parts.encoder, parts.objectives, parts.data)
    learner.prepare()
    learner.train()
    for objective in parts.objectives.values():
        objective.horizon = steps
    named = dict(learner.named_parameters())
    trainable = {k: p for k, p in named.items() if p.requires_grad}
    if not trainable:
        return {}
    averages = {k: m for k, m in learner.named_modules() if isinstance(m, Ema)}
    first = {k: [p.clone() for p in m.parameters()] for k, m in averages.items()}
    loader = Loader(parts.data, streams_of(parts.objectives.values()), batch_size, mu)
    optimizer = torch.optim.Adam(trainable.values(), lr=1e-2)
    waiting: set[str] | None = None
    wrong: list[str] = []
    for step in range(steps):
        found = _terms(learner, loader.plan(step // len(loader), step % len(loader)))
        waiting = set(found) if waiting is None else waiting
        for key in sorted(waiting & found.keys()):
            if _speaks(found[key], list(trainable.values()), key, wrong):
                waiting.discard(key)
        optimizer.zero_grad()
        whole = [v for k, v in found.items() if k.split()[1] == "loss" and v.requires_grad]
        if not whole:
            wrong.append("no loss has a gradient")
        if wrong:
            break
        torch.stack(whole).sum().backward()
        if step == 0:
            wrong += _reached(learner, named)
        optimizer.step()
        for objective in parts.objectives.values():
            objective.after_step(learner.encoder)
        if not waiting and (step > 0 or not averages):
            break
    wrong += [f"no gradient from {key}" for key in sorted(waiting or ())] if not wrong else []
    answers = {"alive": "; ".join(wrong) or None}
    if averages and step > 0:
        said = [_follows(k, m, first[k], list(trainable.values())) for k, m in averages.items()]
        answers["average"] = "; ".join(filter(None, said)) or None
    return answers


def _terms(learner: Learner, plan: Plan) -> dict[str, Tensor]:
    """Every `loss*` of every objective that learns by gradients."""
    batch = learner.data.batch(plan, learner.data.train, learner.views, "cpu")
    found = {}
    for name, objective in learner.objectives.items():
        out = objective(learner.encoder, as_seen_by(objective, batch))
        if objective.trains or any(p.requires_grad for p in objective.parameters()):
            found |= {f"{name} {k}": v for k, v in out.items() if k.startswith("loss")}
    return found


def _speaks(term: Tensor, parameters: list[Tensor], key: str, wrong: list[str]) -> bool:
    if not term.requires_grad:
        return False
    gradients = torch.autograd.grad(term, parameters, allow_unused=True, retain_graph=True)
    gradients = [g for g in gradients if g is not None]
    if not all(g.isfinite().all() for g in gradients):
        wrong.append(f"the gradient of {key} is not finite")
    return any((g.abs() > NOISE).any() for g in gradients)


def _reached(learner: Learner, named: dict[str, Tensor]) -> list[str]:
    """What is wrong about the parameters that the whole loss reaches."""
    wrong = [f"no loss reaches {k}" for k, p in named.items() if p.requires_grad and p.grad is None]
    wrong += [f"a gradient reaches {k}, which is not trained" for k, p in named.items()
              if not p.requires_grad and p.grad is not None]  # fmt: skip
    mine = [p for k, p in named.items() if k.startswith("encoder.") and p.grad is not None]
    if any(o.trains for o in learner.objectives.values()) and not any((p.grad.abs() > NOISE).any() for p in mine):
        wrong.append("the encoder gets no gradient")
    return wrong


def _follows(name: str, average: Ema, first: list[Tensor], trained: list[Tensor]) -> str | None:
    """An average leaves its first weights, is not the network itself, and is trained by nothing but the network."""
    now = list(average.parameters())
    if any(p.requires_grad for p in now):
        return f"{name} is trained by the optimiser"
    moved = [p for p, old in zip(now, first, strict=True) if not torch.equal(p, old)]
    if not moved:
        return f"{name} keeps its first weights"
    if all(any(p.shape == q.shape and torch.equal(p, q) for q in trained) for p in moved):
        return f"{name} equals the network that it averages"
    return None
