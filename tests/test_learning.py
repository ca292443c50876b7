"""Does it learn? Every method against its trivial answer, over paired seeds on small real data, with its defaults."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import sslrun
from sslrun.catalogue import locate, methods
from sslrun.report.paired import paired

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SEEDS = range(5)
WORLDS = {"image": "digits", "table": "breast_cancer"}  # a new modality needs a line here and no new test
OTHER = {"colorization": "tinted"}  # methods that cannot read the world of their modality
LEAN = ["eval=[linear]", "eval.budgets=[40]", "logger=none", "device.threads=1", "reference=null", "labels=40"]
CONSISTENT = (  # methods that learn from labels and unlabelled samples in one step
    "uda", "flexmatch", "freematch", "softmatch", "mixmatch", "mean_teacher", "pi_model", "temporal_ensembling",
    "pseudo_label", "entropy_minimisation",
)  # fmt: skip
SHORT = {  # the defaults, but shorter: as many steps as `sslrun` alone, or what is said here
    "fixmatch": ["reference=true"],
    "distillation": ["reference=true"],
    "noisy_student": ["reference=true"],
    "supervised": ["steps=600"],
    "kmeans": [],
    "gmm": [],
    "pca": [],
    "self_training": [],
    "em_naive_bayes": [],
    "em_gaussian": [],
    "co_training": [],
    "label_propagation": [],
    "label_spreading": [],
    **{name: [] for name in CONSISTENT},
}


def cases():
    for name, node in methods().items():
        for modality in locate(node["_target_"]).modalities or WORLDS:
            yield name, OTHER.get(name, WORLDS[modality])


def tinted(path):
    """scikit-learn's digits, each class in its own colour."""
    bundle = load_digits()
    tint = 0.3 + 0.7 * np.random.default_rng(0).random((10, 3))
    x = (bundle.images[..., None] * 15.9 * tint[bundle.target, None, None]).astype(np.uint8)
    np.savez(path, x_train=x[:1400], y_train=bundle.target[:1400], x_test=x[1400:], y_test=bundle.target[1400:])
    return ["data=image_arrays", f"data.path={path}"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """`results(method, data)` are what the subjects of a run scored, for each seed; trained once."""
    done, folder = {}, tmp_path_factory.mktemp("learning")

    def get(method, data):
        if (method, data) not in done:
            chosen = tinted(folder / "tinted.npz") if data == "tinted" else [f"data={data}"]
            settings = [f"method={method}", *chosen, *LEAN, *SHORT.get(method, ["steps=400"])]
            done[method, data] = [
                sslrun.run([*settings, f"seed={seed}"], folder / f"{method}-{data}-{seed}")["results"] for seed in SEEDS
            ]
        return done[method, data]

    return get


def column(found, subject, metric):
    return [by_subject[subject][metric] for by_subject in found]


def gains(found, ours, theirs, metric="linear@40/accuracy"):
    """Seed by seed, ours less theirs: the same split, labels and first weights."""
    pairs = zip(column(found, ours, metric), column(found, theirs, metric), strict=True)
    return [round(a - b, 4) for a, b in pairs]


def test_there_is_a_method_for_every_case():
    assert {name for name, _ in cases()} == set(methods())
    assert {data for _, data in cases()} == {*WORLDS.values(), *OTHER.values()}


@pytest.mark.parametrize(("method", "data"), cases())
def test_beats_its_trivial_answer(method, data, results):
    """Whatever a method claims to do, it does better than no learning does; a new method is judged here as it is."""
    found = results(method, data)
    assert all(by_subject.keys() & {"trained", "model"} for by_subject in found)
    own = found[0].get("model", {})
    if "task/skill" in own:
        skill = column(found, "model", "task/skill")
        assert min(skill) > 0 and statistics.mean(skill) > 0.05, skill
    elif "classify/accuracy" in own:
        # the largest class of the data: .10 of digits, .63 of breast_cancer
        largest = {"digits": 0.11, "breast_cancer": 0.63}[data]
        accuracy = column(found, "model", "classify/accuracy")
        share = 0.4 if (method, data) == ("em_naive_bayes", "breast_cancer") else 0.6  # measurements are no counts
        assert statistics.mean(accuracy) > largest + share * (1 - largest) and min(accuracy) > largest, accuracy
    elif "cluster/nmi" in own:
        nmi = column(found, "model", "cluster/nmi")
        assert min(nmi) > 0.3, nmi
    else:
        gain = gains(found, "trained", "random")
        # two standard errors of the mean of five runs, each scored on a hundred samples or more, at nine hits in ten
        assert statistics.mean(gain) > -0.02, gain


def test_simclr_separates_digits(results):
    found = results("simclr", "digits")
    gain = gains(found, "trained", "random")
    assert min(gain) > 0 and statistics.mean(gain) > 0.08, gain
    trained = column(found, "trained", "linear@40/accuracy")
    assert statistics.mean(trained) >= 0.94, trained
    for other in ("raw", "random"):
        assert statistics.mean(gains(found, "trained", other)) > 0.03, (other, gains(found, "trained", other))


def test_rotations_of_digits_are_told_apart(results):
    accuracy = column(results("rotation", "digits"), "model", "task/accuracy")
    assert min(accuracy) > 0.8, accuracy  # four turns: .25 by chance


def test_deep_cluster_gains_on_its_untrained_network(results, tmp_path):
    lean = ["method=deep_cluster", "steps=400", "eval=[knn]", "logger=none", "device.threads=1", "reference=null"]
    found = [sslrun.run([*lean, f"seed={seed}"], tmp_path / str(seed))["results"] for seed in (0, 1, 2)]
    gain = gains(found, "trained", "random", "knn/accuracy")
    assert min(gain) > 0 and statistics.mean(gain) > 0.02, gain
    gain = gains(results("deep_cluster", "digits"), "trained", "random")
    assert min(gain) > 0 and statistics.mean(gain) > 0.1, gain


def test_masked_patches_of_digits_are_guessed(results):
    skill = column(results("masked_image", "digits"), "model", "task/skill")
    assert min(skill) > 0.1, skill


def test_tinted_digits_are_coloured(results):
    skill = column(results("colorization", "tinted"), "model", "task/skill")
    assert min(skill) > 0.8, skill


def test_swapped_cells_are_restored(results):
    skill = column(results("denoising_autoencoder", "breast_cancer"), "model", "task/skill")
    assert min(skill) > 0.4, skill


@pytest.mark.parametrize("data", WORLDS.values())
def test_supervised_learning_gains_on_its_untrained_network(data, results):
    found = results("supervised", data)
    pairs = zip(column(found, "model", "classify/accuracy"), column(found, "random", "linear@40/accuracy"), strict=True)
    gain = [round(a - b, 4) for a, b in pairs]
    assert statistics.mean(gain) > {"digits": 0.04, "breast_cancer": -0.02}[data], gain


def test_fixmatch_gains_on_the_labels_alone(results):
    """Held against the network of the same labels, augmentation and steps."""
    found = results("fixmatch", "digits")
    averaged, last = column(found, "ema", "classify/accuracy"), column(found, "model", "classify/accuracy")
    labels_alone = column(found, "supervised", "classify/accuracy")
    assert statistics.mean(averaged) >= 0.95, averaged
    assert statistics.mean(averaged) - statistics.mean(labels_alone) >= 0.02, (averaged, labels_alone)
    assert statistics.mean(averaged) > statistics.mean(last) - 0.01, f"the average lags behind: {averaged} {last}"


@pytest.mark.parametrize("method", CONSISTENT)
def test_unlabelled_samples_add_to_the_labels(method, results):
    ours = column(results(method, "digits"), "ema", "classify/accuracy")
    labels_alone = column(results("supervised", "digits"), "model", "classify/accuracy")
    gain = [round(a - b, 4) for a, b in zip(ours, labels_alone, strict=True)]
    assert statistics.mean(gain) >= 0.01, gain


@pytest.mark.parametrize(("method", "least"), [("distillation", 0.0), ("noisy_student", -0.01)])
def test_students_do_not_fall_behind_the_labels_alone(method, least, results):
    """The averaged student, though the supervised network may train for as long as all generations together."""
    found = results(method, "digits")
    gain = gains(found, "ema", "supervised", "classify/accuracy")
    assert statistics.mean(gain) > least, gain
    lag = gains(found, "model", "ema", "classify/accuracy")
    assert statistics.mean(lag) < 0.005, f"the average reaches back beyond its generation: {lag}"


def classical(method, labels, folder, *settings):
    """Seed by seed on digits: a method's accuracy, and that of logistic regression on the pixels of the same labels."""
    arguments = [f"method={method}", f"labels={labels}", f"eval.budgets=[{labels}]", "eval=[linear]", "logger=none",
                 "device.threads=1", *settings]  # fmt: skip
    found = [sslrun.run([*arguments, f"seed={seed}"], folder / f"{labels}-{seed}")["results"] for seed in SEEDS]
    return column(found, "model", "classify/accuracy"), column(found, "raw", f"linear@{labels}/accuracy")


def gain_of(ours, theirs):
    """The mean of gains on the same seeds, and its 95 % interval."""
    return paired(dict(enumerate(ours)), dict(enumerate(theirs)))


@pytest.mark.parametrize("labels", (10, 40, 100))
def test_self_training_gains_on_its_labels_and_never_harms(labels, tmp_path):
    ours, labels_alone = classical("self_training", labels, tmp_path)
    gain = gain_of(ours, labels_alone)
    assert gain.mean > -0.01, (ours, labels_alone)
    if labels == 10:
        assert gain.mean >= 0.08 and gain.above, (ours, labels_alone)


def test_the_two_views_of_wines_teach_each_other(tmp_path):
    """Beside the same two views on the labels alone, which one round is."""
    lean = ["method=co_training", "data=wine", "labels=6", "eval=[]", "logger=none", "device.threads=1"]

    def accuracy(seed, *settings):
        found = sslrun.run([*lean, f"seed={seed}", *settings], tmp_path / f"{seed}{len(settings)}")["results"]
        return found["model"]["classify/accuracy"]

    gain = gain_of([accuracy(seed) for seed in range(10)], [accuracy(seed, "epochs=1") for seed in range(10)])
    assert gain.mean > 0.015 and gain.above, gain


@pytest.mark.parametrize("method", ("label_propagation", "label_spreading"))
@pytest.mark.parametrize("labels", (10, 40))
def test_labels_spread_further_than_a_probe_of_them(method, labels, tmp_path):
    ours, labels_alone = classical(method, labels, tmp_path)
    assert statistics.mean(ours) >= {10: 0.82, 40: 0.92}[labels], ours
    assert gain_of(ours, labels_alone).above, (ours, labels_alone)


@pytest.mark.parametrize("method", ("em_naive_bayes", "em_gaussian"))
def test_em_never_falls_below_its_labels_alone(method, tmp_path):
    ours, _ = classical(method, 100, tmp_path / "em")
    alone, _ = classical(method, 100, tmp_path / "alone", f"method.{method}.grid=[0]")
    assert statistics.mean(ours) >= statistics.mean(alone) - 0.01, (ours, alone)


def test_kmeans_is_as_good_as_scikit_learn(results):
    from sklearn.cluster import KMeans
    from sklearn.metrics import normalized_mutual_info_score

    from sslrun.data.image import digits
    from sslrun.data.module import Data

    found, ours, theirs = results("kmeans", "digits"), [], []
    for seed, by_subject in zip(SEEDS, found, strict=True):
        data = Data(digits(), seed=seed, split_seed=seed)
        train, test = (part.inputs(torch.arange(len(part))).flatten(1).numpy() for part in (data.train, data._test))
        other = KMeans(10, n_init=10, random_state=seed).fit(train)
        ours.append(by_subject["model"]["cluster/nmi"])
        theirs.append(normalized_mutual_info_score(data._test.labels.numpy(), other.predict(test)))
    assert statistics.mean(ours) > statistics.mean(theirs) - 0.01, (ours, theirs)


@pytest.mark.parametrize("seed", SEEDS)
def test_kmeans_reaches_the_inertia_of_scikit_learn(seed):
    from sklearn.cluster import KMeans

    from sslrun.build import build
    from sslrun.compose import compose
    from sslrun.device import resolve
    from sslrun.fit import Plan, fit, loader_for
    from sslrun.learner import Learner

    cfg, _ = compose(["method=kmeans", f"seed={seed}", "device.threads=1"])
    built, device = build(cfg), resolve(cfg)
    learner = Learner(built.encoder, built.objectives, built.data)
    learner.prepare()
    loader = loader_for(built.data, built.objectives, cfg.batch_size, cfg.mu, device)
    fit(learner, Plan.of(loader, cfg.epochs, None), device)
    x = built.encoder.eval()(built.data.train.inputs(torch.arange(len(built.data.train)))).numpy()
    other = KMeans(10, n_init=10, random_state=seed).fit(x)
    centres = built.objectives["kmeans"].centres + built.objectives["kmeans"].origin
    distance = torch.cdist(torch.from_numpy(x).double().expand(len(centres), -1, -1), centres)  # (R, N, K)
    inertia = distance.square().amin(2).sum(1).min().item()
    assert inertia <= 1.01 * other.inertia_
