"""The judge gives each evaluator what it asks for, and each subject the same treatment."""

import time
from functools import partial

import pytest
import torch
from torch import nn

import sslrun
from sslrun import progress
from sslrun.contracts import Encoder
from sslrun.data.module import Data
from sslrun.data.table import csv, iris
from sslrun.encoders.identity import Identity
from sslrun.encoders.projection import Projection
from sslrun.evaluate.finetune import finetune
from sslrun.evaluate.judge import Judge, needs_of
from sslrun.evaluate.layers import layers

LEAN = ["steps=2", "batch_size=32", "logger=none", "device.threads=1", "precision=fp32", "data=iris"]


class Twice(Encoder):
    """Two stages; counts which parts of it were asked for."""

    def __init__(self, spec):
        super().__init__(spec)
        self.dim, self.scale, self.staged = 4, nn.Parameter(torch.tensor(2.0)), 0

    def forward(self, x):
        return self.scale * x

    def stages(self, x):
        self.staged += 1
        return [x, self.scale * x]


@pytest.fixture
def data():
    return Data(iris(), seed=0, split_seed=0, budgets=(6, 15))


def judge_of(data, **evaluators):
    return Judge(data, evaluators, torch.device("cpu"), None, data.budgets)


def evaluator(answer, *needs):
    def call(train, val, test, spec, **settings):
        return answer(train, val, test, settings)

    call.needs = needs or ("features",)
    return call


def test_needs_are_read_through_partials():
    assert needs_of(finetune) == needs_of(partial(finetune, budgets=[6])) == ("tune",)
    assert needs_of(partial(layers)) == ("stages",)
    assert needs_of(lambda *_: {}) == ("features",)


def test_stages_are_made_only_when_asked_for(data):
    encoder = Twice(data.spec)
    assert judge_of(data, plain=evaluator(lambda *_: {})).splits(encoder)["train"].stages is None
    assert encoder.staged == 0
    stages = judge_of(data, deep=partial(evaluator(lambda *_: {}, "stages"))).splits(encoder)["train"].stages
    assert [s.shape for s in stages] == [(len(data.train), 4)] * 2


@pytest.mark.parametrize("spreads", [False, True])
def test_a_labels_only_network_is_judged_by_its_labels_and_by_unlabelled_rows_where_they_help(data, spreads):
    seen = []
    mine = evaluator(lambda train, *_: seen.append(train) or {"accuracy": 1.0, "@6/accuracy": 1.0})
    mine.spreads = spreads
    judge, rows = judge_of(data, mine=partial(mine)), data.budgets[6]
    judge.score("raw", judge.raw())
    assert judge.within("supervised", Twice(data.spec), 6, rows) == {"mine@6/accuracy": 1.0}
    train = seen[-1]
    known = train.labels >= 0
    assert len(train.labels) == (len(data.train) if spreads else 6) and int(known.sum()) == 6
    assert train.index[known].tolist() == sorted(data.train.index[rows].tolist()) or not spreads
    assert torch.equal(train.labels[known].sort().values, data.train.labels[rows].sort().values)
    assert train.budgets is None


def test_raw_rows_of_a_table_are_standardised_and_categories_indicators(tmp_path):
    path, towns = tmp_path / "people.csv", ["Oslo", "Rome", "Bern"]
    path.write_text("pay,town\n" + "".join(f"{3000 + i},{towns[i % 3]}\n" for i in range(30)))
    data = Data(csv(str(path)), seed=0, split_seed=0)
    raw = judge_of(data).raw()["train"]
    assert raw.isometric and judge_of(data).splits(Projection(data.spec))["train"].isometric
    assert not judge_of(data).splits(Twice(data.spec))["train"].isometric
    found, given = raw.features, data.train.inputs(torch.arange(len(data.train)))
    assert found.shape[1] == 4 and found[:, 0].std(correction=0) == pytest.approx(1, abs=1e-3)
    assert torch.equal(found[:, 1:].argmax(1) + 1, given[:, 1].long()) and found[:, 1:].sum(1).eq(1).all()


def test_a_slow_evaluator_is_named_with_its_subject_and_what_it_took_before(data, monkeypatch, capfd):
    monkeypatch.setattr(progress, "SILENCE", 0.05)
    judge = judge_of(data, slow=evaluator(lambda *_: time.sleep(0.3) or {}), quick=evaluator(lambda *_: {}))
    for subject in ("random", "raw"):
        judge.score(subject, judge.raw())
    assert capfd.readouterr().err == "judging random by slow ...\njudging raw by slow: about 1 s\n"


def test_names_of_metrics(data):
    judge = judge_of(data, mine=evaluator(lambda *_: {"accuracy": 0.5, "@6/accuracy": 0.25}))
    assert judge.score("trained", judge.raw()) == {"mine/accuracy": 0.5, "mine@6/accuracy": 0.25}


def test_evaluators_see_labels_budgets_and_inputs_of_each_part(data):
    seen = {}

    def look(train, val, test, settings):
        seen.update(train=train, val=val, test=test)
        return {}

    judge = judge_of(data, mine=evaluator(look))
    judge.score("raw", judge.raw())
    for name, part in (("train", data.train), ("val", data.val), ("test", data.open_test())):
        assert torch.equal(seen[name].features, Identity(data.spec)(part.inputs(torch.arange(len(part)))))
        assert torch.equal(seen[name].labels, part.labels) and torch.equal(seen[name].index, part.index)
    assert seen["train"].budgets == data.budgets and seen["val"].budgets is None and seen["test"].budgets is None


def test_only_an_encoder_that_can_be_tuned_is_fine_tuned(data):
    asked = []
    judge = judge_of(data, mine=evaluator(lambda *a: asked.append(a[3]) or {"accuracy": 1.0}, "tune"))
    assert judge.score("random", judge.raw()) == {} and not asked
    tune = object()
    assert judge.score("trained", judge.raw(), tune) == {"mine/accuracy": 1.0} and asked == [{"tune": tune}]


def test_within_a_budget_nothing_else_is_seen(data):
    """A network trained on n labels is probed with these n alone, and only on what other subjects were scored on."""
    seen = []

    def look(train, val, test, settings):
        seen.append((train, val))
        return {"accuracy": 0.5, "extra": 1.0} if train.budgets is None else {"accuracy": 0.5, "@6/accuracy": 0.5}

    judge, rows = judge_of(data, mine=evaluator(look)), data.budgets[6]
    judge.score("trained", judge.splits(Twice(data.spec)))
    assert judge.within("supervised", Twice(data.spec), 6, rows) == {"mine@6/accuracy": 0.5}
    train, val = seen[-1]
    assert val is None and train.budgets is None and torch.equal(train.index, data.train.index[rows])
    assert torch.equal(train.features, 2 * data.train.inputs(rows))


def test_protocol_tells_what_subjects_share_and_where_they_differ(data):
    strengths = iter([1.0, 10.0])

    def probe(train, val, test, settings):
        return {"accuracy": 0.5, "protocol": {"": {"C": next(strengths), "rows": 7}, "@6": {"rows": 6}}}

    judge = judge_of(data, linear=evaluator(probe))
    judge.score("trained", judge.raw())
    judge.score("raw", judge.raw())
    assert judge.protocol() == {
        "linear": {"rows": 7, "subjects": {"trained": {"C": 1.0}, "raw": {"C": 10.0}}},
        "linear@6": {"rows": 6},
    }


def test_without_a_test_part_nothing_is_scored():
    data = Data(iris(), seed=0, split_seed=0, test_fraction=0)
    judge = judge_of(data, mine=evaluator(lambda *_: pytest.fail("evaluated")))
    splits = judge.splits(Twice(data.spec))
    assert splits["test"] is None and len(splits["train"].features) == len(data.train)
    assert judge.score("trained", splits) == {} and judge.protocol() == {}


def test_a_run_fine_tunes_and_probes_layers(tmp_path):
    settings = ["eval=[finetune,layers]", "eval.finetune.budgets=[6]", "eval.budgets=[6,15]"]
    found = sslrun.run(["method=simclr", *LEAN, *settings], folder=tmp_path / "run")
    trained, random = found["results"]["trained"], found["results"]["random"]
    assert {"finetune/accuracy", "finetune@6/accuracy"} <= trained.keys() and "finetune@15/accuracy" not in trained
    for subject in (trained, random):
        assert {"layers/stage1/accuracy", "layers/best/accuracy", "layers@15/best/accuracy"} <= subject.keys()
    assert not any(k.startswith("finetune") for k in random)
    raw = found["results"].get("raw", {})
    assert not any(k.startswith("layers") for k in raw), "inputs have no layers"
    assert found["protocol"]["finetune@6"]["rows"] == 6
