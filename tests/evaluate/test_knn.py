import numpy as np
import pytest
import torch

from sslrun.contracts import DataSpec, Split
from sslrun.evaluate import knn as module
from sslrun.evaluate.knn import classify, knn

SPEC = DataSpec("toy", "table", (8,), 5)


def blobs(n, seed, classes=5):
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=draw)
    centres = torch.randn(classes, 8, generator=torch.Generator().manual_seed(9))
    return Split(centres[labels] + torch.randn(n, 8, generator=draw), labels, torch.arange(n))


def brute_force(train, test, k, temperature, classes):
    bank, asked = (s.features.numpy().astype(np.float64) for s in (train, test))
    bank = bank / np.linalg.norm(bank, axis=1, keepdims=True)
    asked = asked / np.linalg.norm(asked, axis=1, keepdims=True)
    out = []
    for row in asked:
        similarity = bank @ row
        near = np.argsort(-similarity)[:k]
        votes = np.zeros(classes)
        np.add.at(votes, train.labels.numpy()[near], np.exp(similarity[near] / temperature))
        out.append(votes.argmax())
    return np.array(out)


@pytest.mark.parametrize("k, temperature", [(1, 0.07), (20, 0.07), (7, 1.0)])
@pytest.mark.parametrize("cells", [2**25, 500])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_equals_brute_force(monkeypatch, k, temperature, cells, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    monkeypatch.setattr(module, "CELLS", cells)
    train, test = blobs(150, 0), blobs(90, 1)
    expected = brute_force(train, test, k, temperature, 5)
    found = classify(train.features.to(device), train.labels, test.features, 5, k, temperature)
    assert np.array_equal(found.cpu().numpy(), expected)
    result = knn(train, None, test, SPEC, k=k, temperature=temperature)
    assert result["accuracy"] == pytest.approx((expected == test.labels.numpy()).mean())
    assert result["protocol"][""]["k"] == k and result["protocol"][""]["temperature"] == temperature


def test_the_order_of_rows_changes_nothing():
    train, test = blobs(150, 0), blobs(90, 1)
    train.features[10:60] = train.features[10]  # copies with different labels: ties at the edge

    def shuffled(split, seed):
        order = torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(seed))
        return Split(split.features[order], split.labels[order], split.index[order])

    expected = knn(train, None, test, SPEC)
    for seed in range(3):
        assert knn(shuffled(train, seed), None, shuffled(test, seed + 10), SPEC) == expected


def test_equal_votes_go_to_the_lowest_class():
    bank = torch.eye(4).repeat(2, 1)
    labels = torch.tensor([3, 1, 0, 2, 1, 3, 2, 0])
    asked = torch.eye(4)
    assert classify(bank, labels, asked, 4, k=2).tolist() == [1, 1, 0, 0]
    assert classify(bank, labels, asked, 4, k=1).tolist() == [1, 1, 0, 0]
    same = torch.ones(8, 4)
    assert classify(same, labels, asked, 4, k=3).tolist() == [0] * 4  # the neighbours taken are 0, 0, 1


def test_a_copy_of_the_test_rows_moves_only_the_score():
    train, test = blobs(150, 0), blobs(90, 1)
    honest = knn(train, None, test, SPEC, k=1)
    copied = Split(
        torch.cat([train.features, test.features]),
        torch.cat([train.labels, test.labels]),
        torch.cat([train.index, test.index + 1000]),
    )
    leaked = knn(copied, None, test, SPEC, k=1)
    assert leaked["accuracy"] == 1 > honest["accuracy"]
    assert {**leaked["protocol"][""], "rows": 150} == honest["protocol"][""]


def test_classes_missing_in_either_part():
    train, test = blobs(150, 0), blobs(90, 1)
    train.labels[train.labels == 4] = -1
    without = knn(train, None, test, SPEC)
    assert without["protocol"][""]["rows"] == (train.labels >= 0).sum()
    assert without["accuracy"] <= (test.labels != 4).float().mean()
    test.labels[test.labels == 2] = -1
    assert 0 < knn(train, None, test, SPEC)["balanced_accuracy"] < 1


def test_k_is_capped_and_said_so():
    train, test = blobs(6, 0), blobs(30, 1)
    found = knn(train, None, test, SPEC, k=20)
    assert found["protocol"][""]["k"] == 6
    assert found["accuracy"] == knn(train, None, test, SPEC, k=6)["accuracy"]


def test_small_temperatures_do_not_overflow():
    train, test = blobs(150, 0), blobs(90, 1)
    found = classify(train.features, train.labels, test.features, 5, 20, 1e-4)
    assert torch.equal(found, classify(train.features, train.labels, test.features, 5, 1, 1.0))


def test_without_labels_there_is_nothing_to_score():
    train, test = blobs(20, 0), blobs(20, 1)
    assert knn(train, None, test, DataSpec("toy", "table", (8,), 0)) == {}
    train.labels[:] = -1
    assert knn(train, None, test, SPEC) == {}
