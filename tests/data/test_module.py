"""Streams and batches: functions of seed, epoch, step and place, for any number of processes."""

import pytest
import torch

from sslrun.contracts import DataSpec, UserError
from sslrun.data import module
from sslrun.data.loader import Loader
from sslrun.data.module import Data
from sslrun.data.source import Part, Source
from sslrun.rng import BLOCK

N, CLASSES = 300, 3


class Noise:
    """A recipe that adds what it draws, so that the draws can be read off the view."""

    def prepare(self, x):
        self.seen = x

    def views(self, x, rngs):
        turn = torch.tensor([[0.6, 0.8], [-0.8, 0.6]])  # a product, which autocast would do in half precision
        return [x + rng.normal(x.shape[1]) @ turn for rng in rngs]


def source(groups=None, labelled=N):
    x = torch.arange(N * 2).view(N, 2).float()
    y = torch.arange(N) % CLASSES
    y[labelled:] = -1
    return Source(DataSpec("rows", "table", (2,), CLASSES), Part(x, y, groups), fingerprint="f")


def data(seed=0, split_seed=0, groups=None, labelled=N, **settings):
    made = source(groups, labelled)
    return Data(made, seed=seed, split_seed=split_seed, recipes={"noise": Noise()}, **settings)


ALL = ("all", "labelled", "unlabelled")
VIEWS = {"all": {("view", "noise")}, "unlabelled": {("view", "noise"), ("other", "noise")}}


def positions(loader, epoch):
    return {
        s: torch.cat([loader.plan(epoch, k).streams[s].positions for k in range(len(loader))]) for s in loader.sizes
    }


# Parts


def test_parts_are_disjoint_and_test_is_sealed_until_it_is_opened():
    made = data()
    test = made.open_test()
    rows = [set(part.rows.tolist()) for part in (made.train, made.val, test)]
    assert sum(map(len, rows)) == N and not rows[0] & rows[1] and not rows[0] & rows[2] and not rows[1] & rows[2]
    seen = [part for part in vars(made).values() if part is test]
    assert len(seen) == 1 and "test" not in made._parts and not hasattr(made, "test")
    for name in ALL:  # no batch of training reaches a row of the test part
        pool = Loader(made, ALL, 10, 1).pools[name]
        assert not set(made.train.rows[pool].tolist()) & rows[2]
    assert set(made.recipes["noise"].seen[:, 0].div(2).long().tolist()) <= rows[0]


def test_standardisation_is_that_of_the_training_part_alone():
    made = data()
    x = made.train.inputs(torch.arange(len(made.train)))
    torch.testing.assert_close(torch.tensor(made.spec.mean), x.mean(0))
    torch.testing.assert_close(torch.tensor(made.spec.std), x.std(0, correction=0))


def test_groups_stay_together():
    made = data(groups=[f"g{i // 10}" for i in range(N)])
    parts = [{int(r) // 10 for r in part.rows} for part in (made.train, made.val, made.open_test())]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]


def test_split_follows_split_seed_and_not_seed():
    assert torch.equal(data(seed=1).train.rows, data(seed=2).train.rows)
    assert not torch.equal(data(split_seed=1).train.rows, data(split_seed=2).train.rows)
    assert data(seed=1).splits() == data(seed=2).splits()


# Labels


def test_budgets_are_nested_balanced_and_survive_another_cut():
    made = data(budgets=(6, 30, 2, 5000), labels=12)
    assert list(made.budgets) == [6, 30]  # fewer labels than classes, or more than there are, do not fit
    sets = [set(made.train.index[rows].tolist()) for rows in (made.budgets[6], made.labelled, made.budgets[30])]
    assert sets[0] < sets[1] < sets[2]
    assert made.train.labels[made.labelled].bincount().tolist() == [4, 4, 4]
    assert (made.train.y >= 0).nonzero().flatten().tolist() == made.labelled.tolist()
    assert set(made.with_labels(6).train.index[made.with_labels(6).labelled].tolist()) == sets[0]
    assert (made.train.y >= 0).sum() == 12  # another budget leaves this one alone
    other = data(labels=12, val_fraction=0.2)
    common = set(made.train.index.tolist()) & set(other.train.index.tolist())
    assert len(sets[1] & set(other.train.index[other.labelled].tolist())) >= len(sets[1] & common) - 3


def test_unlabelled_includes_the_labelled_unless_excluded():
    made, without = data(labels=12), data(labels=12, exclude_labelled=True)
    assert made.unlabelled.tolist() == list(range(len(made.train)))
    left = set(without.unlabelled.tolist())
    assert left == set(range(len(without.train))) - set(without.labelled.tolist())
    assert not len(data(exclude_labelled=True).unlabelled), "all are labelled"


@pytest.mark.parametrize(("labels", "wrong"), [(2, "from 3 to"), (10_000, "from 3 to")])
def test_label_numbers_that_do_not_work_are_refused(labels, wrong):
    with pytest.raises(UserError, match=f"labels={labels} does not work with data=rows.*{wrong}"):
        data(labels=labels)


def test_data_without_labels_refuse_a_labelled_stream():
    with pytest.raises(UserError, match="data=rows has no labels"):
        Loader(data(labelled=0), ("labelled",), 8, 1)


# Streams


@pytest.mark.parametrize("streams", [("all",), ("labelled", "unlabelled"), ("all", "labelled")])
def test_an_epoch_is_one_pass_over_the_driving_stream(streams):
    made = data(labels=12)
    loader = Loader(made, streams, 10, 2)
    driver = "unlabelled" if "unlabelled" in streams else "all"
    shown = positions(loader, 0)
    assert len(loader) == len(made.train) // loader.sizes[driver]
    assert len(shown[driver].unique()) == len(shown[driver]) == len(loader) * loader.sizes[driver]
    assert not torch.equal(shown[driver], positions(loader, 1)[driver])
    if "unlabelled" in streams:
        assert (loader.sizes["labelled"], loader.sizes["unlabelled"]) == (10, 20)


def test_the_labelled_stream_cycles_without_end():
    made = data(labels=12)
    loader = Loader(made, ("labelled", "unlabelled"), 10, 2)
    flat = torch.cat([positions(loader, epoch)["labelled"] for epoch in range(3)])
    turns = flat[: len(flat) // 12 * 12].view(-1, 12)
    assert len(turns) > 5  # turns go on over the ends of epochs, each a new order of all labelled samples
    assert all(sorted(turn.tolist()) == sorted(made.labelled.tolist()) for turn in turns)
    assert len({tuple(turn.tolist()) for turn in turns}) == len(turns)
    alone = Loader(made, ("labelled",), 10, 1)
    assert len(alone) == len(made.train) // 10  # few labels are trained on for as long as many


def test_a_batch_larger_than_the_labels_repeats_them_evenly():
    made = data(labels=6)
    counts = Loader(made, ("labelled",), 20, 1).plan(0, 0).streams["labelled"].positions.bincount()
    assert set(counts[made.labelled].tolist()) <= {3, 4}


def test_whole_epochs_keep_the_short_last_batch():
    made = data()
    loader = Loader(made, ("all",), 32, 1, whole=True)
    shown = positions(loader, 2)["all"]
    assert sorted(shown.tolist()) == list(range(len(made.train))) and len(made.train) % 32
    assert sum(len(x) for x in (loader.plan(0, k).streams["all"].positions for k in range(len(loader)))) == len(shown)


def test_the_loader_goes_on_where_its_position_says():
    loader = Loader(data(labels=12), ALL, 10, 2)
    loader.position = lambda: (3, 2)
    plans = list(loader)
    assert [(plan.epoch, plan.step) for plan in plans] == [(3, k) for k in range(2, len(loader))]
    fresh = Loader(data(labels=12), ALL, 10, 2)
    for plan in plans:
        again = fresh.plan(plan.epoch, plan.step)
        assert all(torch.equal(plan.streams[s].positions, again.streams[s].positions) for s in ALL)


@pytest.mark.parametrize(
    ("batch_size", "mu", "world", "sentence"),
    [
        (500, 1, 1, "batch_size=500 is larger than the 2"),
        (200, 2, 1, "batch_size=200 times mu=2 is larger"),
        (9, 1, 2, "cannot be shared by 2"),
    ],
)
def test_batches_that_do_not_fit_are_refused(batch_size, mu, world, sentence):
    with pytest.raises(UserError, match=sentence):
        Loader(data(), ("unlabelled",), batch_size, mu, world=world)


# Batches


def batches(made, world, epoch=1, step=2, whole=False, size=12):
    loaders = [Loader(made, ALL, size, 2, rank, world, whole) for rank in range(world)]
    return [made.batch(loader.plan(epoch, step), made.train, VIEWS, "cpu") for loader in loaders]


@pytest.mark.parametrize("world", (2, 3, 4))
def test_processes_share_the_batch_and_its_draws(world):
    made = data(labels=12)
    one, parts = batches(made, 1)[0], batches(made, world)
    for stream in ALL:
        for key in one[stream]:
            assert torch.equal(torch.cat([part[stream][key] for part in parts]), one[stream][key]), (stream, key)
        draws = torch.cat([part[stream].rng("any").integers(1000, 3) for part in parts])
        assert torch.equal(draws, one[stream].rng("any").integers(1000, 3))
        assert torch.equal(parts[1][stream].rng("any").whole().uniform(2), one[stream].rng("any").uniform(2))


def test_a_batch_depends_on_its_place_and_the_seed_and_on_no_state():
    made = data(labels=12)
    first = batches(made, 1)[0]
    torch.manual_seed(7)
    torch.rand(100)
    again = batches(made, 1)[0]
    for stream in ALL:
        assert all(torch.equal(first[stream][key], again[stream][key]) for key in first[stream])
    noise = first["all"]["view", "noise"] - first["all"]["x"]
    others = [batches(made, 1, step=3)[0], batches(made, 1, epoch=2)[0], batches(data(seed=1, labels=12), 1)[0]]
    for other in others:
        assert not torch.equal(other["all"]["view", "noise"] - other["all"]["x"], noise)
    views = first["unlabelled"]
    assert not torch.equal(views["view", "noise"], views["other", "noise"])


def test_labels_reach_the_labelled_stream_alone():
    batch = batches(data(labels=12), 1)[0]
    assert (batch["all"]["y"] == -1).all() and (batch["unlabelled"]["y"] == -1).all()
    assert torch.equal(batch["labelled"]["y"], batch["labelled"]["index"] % CLASSES)
    assert torch.equal(batch["all"]["x"][:, 0].long(), batch["all"]["index"] * 2)


def test_views_are_float32_whatever_the_precision():
    made = data(labels=12)
    expected = batches(made, 1)[0]["all"]["view", "noise"]
    torch.set_default_dtype(torch.float64)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            got = batches(made, 1)[0]["all"]["view", "noise"]
            assert torch.is_autocast_enabled("cpu") and torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert got.dtype == torch.float32 and torch.equal(got, expected)


# Validation


def look(made, part, size, limit=None):
    batches = [made.batch(plan, part, VIEWS, "cpu") for plan in made.validation(part, ("all",), size, limit)]
    return torch.cat([batch["all"]["view", "noise"] for batch in batches]), batches


def test_validation_draws_depend_on_the_sample_alone():
    made = data()
    whole, batches = look(made, made.train, 512)
    assert len(made.train) > 2 * BLOCK
    for size in (BLOCK, 2 * BLOCK):
        assert torch.equal(look(made, made.train, size)[0], whole)
    some = [look(made, made.train, size, 100)[0] for size in (BLOCK, 2 * BLOCK)]
    assert len(some[0]) == 100 and torch.equal(*some)
    noise = whole - batches[0]["all"]["x"]
    assert len(noise.unique(dim=0)) == len(noise)
    assert not torch.equal(look(data(seed=1), made.train, 512)[0], whole)


def test_a_limit_takes_a_sample_of_the_part_and_not_its_first_classes():
    """A folder of pictures lies in the order of its classes."""
    x, y = torch.arange(600).view(300, 2).float(), torch.arange(N) // (N // CLASSES)
    made = Data(Source(DataSpec("rows", "table", (2,), CLASSES), Part(x, y), fingerprint="f"), seed=0, split_seed=0)
    plans = list(made.validation(made.train, ("all",), 64, 90))
    rows = torch.cat([plan.streams["all"].positions for plan in plans])
    assert len(rows) == len(rows.unique()) == 90
    assert (made.train.labels[rows].bincount(minlength=CLASSES) > 20).all()
    assert torch.equal(rows, made.sample(90, made.train).sort().values)


def test_validation_shows_the_true_labels_in_every_stream():
    made = data(labels=12)
    (plan,) = made.validation(made.val, ALL, 512)
    batch = made.batch(plan, made.val, {}, "cpu")
    for stream in ALL:
        assert torch.equal(batch[stream]["y"], made.val.labels)
    with pytest.raises(ValueError, match=f"multiple of {BLOCK}"):
        look(made, made.train, 50)


def test_samples_of_an_accelerator_are_waited_for_before_the_processor_reads_them():
    """A copy that does not block leaves what was there before: raw pixels scored like noise on a GPU."""
    told = []

    class Store:
        def __getitem__(self, rows):
            return self

        def to(self, device, non_blocking):
            told.append((device, non_blocking))
            return torch.zeros(2, 4)

    part = module.Part(Store(), torch.zeros(2, dtype=torch.long), torch.arange(2), torch.arange(2), 1.0)
    for device in ("cpu", "cuda"):
        part.inputs(torch.arange(2), device)
    assert told == [("cpu", False), ("cuda", True)]
