"""The one LightningModule: sums, scales, views, what happens within a step, and the guard against NaN."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from sslrun.contracts import DataSpec, Objective, UserError
from sslrun.data.loader import Loader
from sslrun.data.module import Data
from sslrun.data.source import Part, Source
from sslrun.device import Device
from sslrun.encoders.mlp import Mlp
from sslrun.fit import Plan, fit
from sslrun.learner import CHECK_EVERY, Learner
from sslrun.nn.optim import sgd
from sslrun.streams import as_seen_by, streams_of, views_of

CPU = Device("cpu", 1, 1, 1, "fp32")


class Recipe:
    def __init__(self, shift):
        self.shift = shift

    def prepare(self, x):
        pass

    def views(self, x, rngs):
        return [x + self.shift for _ in rngs]


def data(n=64, labels=None):
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(0))
    source = Source(DataSpec("rows", "table", (4,), 2), Part(x, torch.arange(n) % 2), fingerprint="f")
    return Data(
        source,
        seed=0,
        split_seed=0,
        labels=labels,
        val_fraction=0,
        test_fraction=0,
        recipes={"one": Recipe(1.0), "ten": Recipe(10.0)},
    )


class Square(Objective):
    """Half the squared length of the features, times `size`; notes what it is called with."""

    def __init__(self, encoder, spec, size=1.0, view="one", trivial=None):
        super().__init__(encoder, spec)
        self.views = {"all": {"view": view}}
        self.size, self.calls = size, []
        self.register_buffer("table", torch.zeros(0))
        if trivial is not None:
            self.trivial = lambda batch: {"loss": torch.tensor(trivial)}

    def prepare(self, data, encoder):
        self.table = torch.ones(3)

    def forward(self, encoder, batch):
        self.calls.append("forward")
        self.seen = batch
        return {"loss": self.size * encoder(batch["all"]["view"]).square().sum(1).mean() / 2}

    def after_step(self, encoder):
        self.calls.append("step")

    def after_epoch(self, encoder):
        self.calls.append("epoch")


def learner(objectives, made=None, weights=None, lr=0.01):
    made = made or data()
    torch.manual_seed(0)
    encoder = Mlp(made.spec, (5,))
    built = {name: make(encoder, made.spec) for name, make in objectives.items()}
    found = Learner(encoder, built, made, weights, lambda module: (sgd(module, lr, momentum=0.0), lambda step: 1.0))
    found.prepare(Loader(made, streams_of(built.values()), 16, 1).first())
    return found


def train(module, epochs=1, accumulate=1, callbacks=(), size=16):
    loader = Loader(module.data, streams_of(module.objectives.values()), size, 1)
    return fit(module, Plan.of(loader, epochs, None, accumulate), CPU, callbacks=list(callbacks))


def step(module):
    loader = Loader(module.data, streams_of(module.objectives.values()), 16, 1)
    module.train()
    return module.training_step(loader.plan(0, 0), 0)


def test_views_are_the_union_and_each_objective_sees_its_own_under_its_own_names():
    made = learner({"a": Square, "b": lambda e, s: Square(e, s, view="ten")})
    assert views_of(made.objectives.values()) == {"all": {("view", "one"), ("view", "ten")}}
    step(made)
    for name, shift in (("a", 1.0), ("b", 10.0)):
        seen = made.objectives[name].seen["all"]
        assert set(seen) == {"x", "y", "index", "view"}
        torch.testing.assert_close(seen["view"], seen["x"] + shift)


def test_losses_are_weighted_and_scaled_by_their_trivial_loss_only_when_there_are_several():
    objectives = {"a": lambda e, s: Square(e, s, trivial=4.0), "b": lambda e, s: Square(e, s, size=3.0)}
    made = learner(objectives, weights={"b": 0.5})
    one = step(learner({"a": Square})).item()
    assert step(made).item() == pytest.approx(one / 4 + 0.5 * 3 * one, rel=1e-5)
    assert made.scalars["a/loss"].item() == pytest.approx(one, rel=1e-5)
    alone = learner({"a": lambda e, s: Square(e, s, trivial=4.0)})
    assert step(alone).item() == pytest.approx(one, rel=1e-5) and "loss" in alone.scalars


def test_an_encoders_own_loss_is_added():
    made = learner({"a": Square})
    before = step(made).item()
    made.encoder.aux_loss = torch.tensor(2.5)
    assert step(made).item() == pytest.approx(before + 2.5, rel=1e-6)


def test_after_step_is_per_optimiser_step_and_after_epoch_comes_within_the_last_one():
    class Saved(pl.Callback):
        """What a callback that saves after each batch would find."""

        def __init__(self):
            self.seen = []

        def on_train_batch_end(self, trainer, module, *_):
            self.seen.append(list(module.objectives["a"].calls))

    made, saved = learner({"a": Square}), Saved()
    train(made, epochs=2, accumulate=2, callbacks=[saved])
    epoch = ["forward", "forward", "step", "forward", "forward", "step", "epoch"]
    assert made.objectives["a"].calls == epoch * 2
    assert saved.seen[3] == epoch and saved.seen[1] == epoch[:3] and saved.seen[0] == epoch[:1]


def test_accumulated_steps_equal_one_of_the_whole_batch():
    ends = []
    for size, accumulate in ((32, 1), (16, 2)):
        made = learner({"a": Square}, data(32), lr=0.1)
        assert train(made, accumulate=accumulate, size=size).global_step == 1
        ends.append(made.encoder.layers[0][0].weight.detach())
    torch.testing.assert_close(*ends)


def test_training_stops_when_all_have_converged_also_at_the_start():
    class Soon(Square):
        def converged(self):
            return self.calls.count("epoch") >= 2

    made = learner({"a": Soon})
    assert train(made, epochs=50).global_step == 8
    assert train(made, epochs=50).global_step == 0
    both = learner({"a": Soon, "b": Square})
    assert train(both, epochs=3).global_step == 12


def test_global_draws_are_reseeded_at_each_step():
    class Dropout(Square):
        def forward(self, encoder, batch):
            self.calls.append(torch.rand(()).item())
            return super().forward(encoder, batch)

    draws = []
    for seed in (1, 2):
        made = learner({"a": Dropout})
        torch.manual_seed(seed)
        train(made)
        draws.append([c for c in made.objectives["a"].calls if isinstance(c, float)])
    assert draws[0] == draws[1] and len(set(draws[0])) == 4


def test_a_loss_that_is_not_a_number_ends_the_run_with_the_step_and_what_to_do():
    class Breaks(Square):
        def forward(self, encoder, batch):
            out = super().forward(encoder, batch)
            return {"loss": out["loss"] * (float("nan") if self.calls.count("forward") == 3 else 1)}

    made = learner({"a": Breaks})
    with pytest.raises(UserError, match="NaN or infinite at step 2.*lower lr"):
        train(made)
    assert CHECK_EVERY > 1 and int(made.bad_step) == 2


def test_an_encoder_that_nothing_trains_is_frozen():
    class Counts(Square):
        trains = False

        def forward(self, encoder, batch):
            return {"loss": super().forward(encoder, batch)["loss"].detach()}

    made = learner({"a": Counts})
    before = {k: v.clone() for k, v in made.encoder.state_dict().items()}
    assert train(made).global_step == 4
    assert not any(p.requires_grad for p in made.parameters())
    assert all(torch.equal(v, before[k]) for k, v in made.encoder.state_dict().items())


def test_the_exported_network_may_be_a_teacher():
    class Teacher(Square):
        def __init__(self, encoder, spec):
            super().__init__(encoder, spec)
            self.teacher = nn.Linear(1, 1)

        def exported(self, encoder):
            return self.teacher

    made = learner({"a": Square, "b": Teacher})
    assert made.exported() is made.objectives["b"].teacher
    alone = learner({"a": Square})
    assert alone.exported() is alone.encoder


def test_a_stream_that_an_objective_does_not_read_stays_hidden():
    made = learner({"a": Square}, data(labels=4))
    batch = made.data.batch(Loader(made.data, ("all", "labelled"), 8, 1).plan(0, 0), made.data.train, made.views, "cpu")
    assert list(as_seen_by(made.objectives["a"], batch)) == ["all"]


def test_positions_stay_beside_the_tables_that_they_index():
    """Lightning would move them to the accelerator, where no table of rows is."""
    made = data()
    module, plan = Learner(Mlp(made.spec, (5,)), {}, made), Loader(made, ("all",), 8, 1, 0, 1, False).plan(0, 0)
    moved = module.transfer_batch_to_device(plan, torch.device("meta"), 0)
    assert moved.streams["all"].positions.device.type == "cpu"
