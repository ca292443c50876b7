"""Parts and label budgets depend on (data, seed, row) alone."""

import hashlib

import numpy as np
import pytest

from sslrun.data import splits

LABELS = np.repeat(np.arange(4), (40, 20, 10, 2))
ROWS = np.arange(len(LABELS))


def test_order_is_by_sha256_of_the_row():
    def key(row):
        return hashlib.sha256(f"d|3|split|{row}".encode()).digest()

    rows = [7, 3, 11, 5]
    assert splits.order("d", 3, rows).tolist() == sorted(rows, key=key)
    assert splits.order("d", 3, rows[::-1]).tolist() == splits.order("d", 3, rows).tolist()
    whole, some = splits.order("d", 3, range(50)).tolist(), splits.order("d", 3, range(0, 50, 3)).tolist()
    assert [row for row in whole if row in some] == some  # a row's place depends on no other row
    assert whole != splits.order("d", 4, range(50)).tolist() != splits.order("e", 4, range(50)).tolist()


def test_each_class_gives_its_share_and_keeps_a_row():
    kept, cut = splits.cut("d", 0, LABELS, ROWS, 0.2, "test")
    assert sorted([*kept, *cut]) == ROWS.tolist() and len(np.intersect1d(kept, cut)) == 0
    assert np.bincount(LABELS[cut]).tolist() == [8, 4, 2, 1]
    assert (np.diff(kept) > 0).all() and (np.diff(cut) > 0).all()
    single = np.array([0, 0, 0, 0, 1])
    kept, cut = splits.cut("d", 0, single, np.arange(5), 0.2, "test")
    assert 1 in single[kept] and 1 not in single[cut]


def test_unlabelled_rows_are_not_cut_unless_nothing_is_labelled():
    half = np.where(ROWS % 2 == 0, LABELS, -1)
    _, cut = splits.cut("d", 0, half, ROWS, 0.3, "val")
    assert (half[cut] >= 0).all() and len(cut)
    _, cut = splits.cut("d", 0, np.full(50, -1), np.arange(50), 0.3, "val")
    assert len(cut) == 15


def test_purpose_and_seed_give_other_parts():
    cuts = {
        tuple(splits.cut("d", seed, LABELS, ROWS, 0.2, purpose)[1]) for seed in (0, 1) for purpose in ("val", "test")
    }
    assert len(cuts) == 4


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_together(seed):
    groups = [f"patient {i % 9}" for i in ROWS]
    kept, cut = splits.cut("d", seed, LABELS, ROWS, 0.25, "test", groups)
    names = np.array(groups)
    assert not set(names[kept]) & set(names[cut]) and len(cut) and len(kept)
    assert abs(len(cut) - 0.25 * len(ROWS)) <= 8  # a group's size


@pytest.mark.parametrize("seed", range(3))
def test_budgets_are_nested_and_balanced(seed):
    sequence = splits.label_sequence("d", seed, LABELS, ROWS)
    assert sorted(sequence) == ROWS.tolist()
    for n in (4, 7, 8, 20, 42):
        counts = np.bincount(LABELS[sequence[:n]], minlength=4)
        full = counts < np.bincount(LABELS)  # classes that have rows left
        assert counts.min() >= 1 and np.ptp(counts[full]) <= 1
    assert not np.array_equal(sequence, splits.label_sequence("d", seed + 10, LABELS, ROWS))


def test_unlabelled_rows_are_in_no_budget():
    half = np.where(ROWS % 2 == 0, LABELS, -1)
    assert (half[splits.label_sequence("d", 0, half, ROWS)] >= 0).all()


def test_digest_tells_rows_apart():
    assert splits.digest(np.array([1, 2])) == splits.digest(np.array([1, 2], dtype=np.int32))
    assert splits.digest(np.array([1, 2])) != splits.digest(np.array([2, 1]))
