"""The lazy store, fingerprints and label codes."""

import pickle
import threading

import pytest
import torch

from sslrun.contracts import UserError
from sslrun.data.source import Images, encode_labels, fingerprint


def ramp(i: int) -> torch.Tensor:
    return torch.full((1, 2, 2), float(i))


def test_images_index_like_a_tensor_and_survive_pickling():
    images = Images(ramp, 50, (1, 2, 2), torch.float32, workers=4)
    rows = torch.tensor([49, 3, 3, 0, 7, 12])
    assert len(images) == 50 and images.shape == (50, 1, 2, 2)
    assert images[rows][:, 0, 0, 0].tolist() == rows.tolist()
    assert images[torch.tensor([], dtype=torch.long)].shape == (0, 1, 2, 2)
    assert torch.equal(pickle.loads(pickle.dumps(images))[rows], images[rows])


def test_prefetch_returns_before_it_is_done():
    gate = threading.Event()

    def slow(i: int) -> torch.Tensor:
        gate.wait(10)
        return ramp(i)

    pending = Images(slow, 4, (1, 2, 2), torch.float32, workers=2).prefetch(torch.tensor([2, 1]))
    assert not pending.done()
    gate.set()
    assert pending.result()[:, 0, 0, 0].tolist() == [2, 1]


def test_fingerprints_differ_by_type_shape_and_value():
    x = torch.arange(6)
    marks = {fingerprint(x), fingerprint(x.int()), fingerprint(x.view(2, 3)), fingerprint(x.flip(0)), fingerprint("a")}
    assert len(marks) == 5
    assert fingerprint(x.view(2, 3).t()) == fingerprint(x.view(2, 3).t().contiguous())


def test_labels_are_coded_by_training():
    coded, classes = encode_labels({"train": [10, None, 9], "test": [9, None]}, "data.x")
    assert classes == ("9", "10") and coded["train"].tolist() == [1, -1, 0] and coded["test"].tolist() == [0, -1]
    with pytest.raises(UserError, match="data.x: class 'c' in the val part"):
        encode_labels({"train": ["a", "b"], "val": ["c"]}, "data.x")
    coded, classes = encode_labels({"train": ["b", None], "test": ["a", "b"]}, "data.x")
    assert classes == ("a", "b") and coded["train"].tolist() == [1, -1] and coded["test"].tolist() == [0, 1]
