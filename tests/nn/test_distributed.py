"""Two processes equal one: collectives, global batch norm and NT-Xent, checked in one pair of gloo processes."""

import multiprocessing
import queue
import traceback

import pytest
import torch
import torch.distributed as dist
from torch import nn

from sslrun.nn.batch_norm import GlobalBatchNorm2d, LayerSync, synchronise
from sslrun.nn.gather import all_sum, gather, rank, sizes, world
from sslrun.nn.losses import info_nce

PARTS = {"even": (slice(0, 4), slice(4, 8)), "uneven": (slice(0, 5), slice(5, 8))}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 6), nn.BatchNorm1d(6)]
    return nn.Sequential(*layers).double()


def coupled(x):
    """A loss in which every row meets every other."""
    return (x @ draw(3, 3, seed=5) @ gather(x).T).tanh().sum()


def spread(x):
    """The variance of all rows, as a penalty would use it."""
    count = all_sum(x.new_tensor([len(x)]))
    mean = all_sum(x.sum(0)) / count
    return (all_sum((x - mean).square().sum(0)) / count).sqrt().sum()


def contrast(model, x, part):
    """Loss, accuracy and, after the data-parallel mean, gradients and buffers."""
    loss, accuracy = info_nce(model(x[part]), model(x[part] * 0.9 + 0.1), temperature=0.2)
    loss.backward()
    if world() > 1:
        for p in model.parameters():
            dist.all_reduce(p.grad)
            p.grad /= world()
    return {
        "loss": loss.item(),
        "accuracy": accuracy.item(),
        "gradients": [p.grad.tolist() for p in model.parameters()],
        "buffers": {n: b.tolist() for n, b in model.named_buffers()},
    }


def checks(part_of):
    out = {"sizes": sizes(torch.zeros(rank() + 1)), "labels": gather(torch.arange(rank() + 1)).tolist()}
    for name, parts in part_of.items():
        part = parts[rank()]
        x = draw(8, 3)[part].requires_grad_()
        out[f"gather {name}"] = gather(x).tolist()
        (coupled(x) / world()).backward()
        out[f"gather gradient {name}"] = x.grad.tolist()
        x = draw(8, 3)[part].requires_grad_()
        (spread(x) / world()).backward()
        out[f"sum gradient {name}"] = x.grad.tolist()
        out[f"contrast {name}"] = contrast(synchronise(network()), draw(8, 2, 6, 6), part)
    norm = GlobalBatchNorm2d(2, momentum=None).double()
    x = draw(8, 2, 3, 3)
    for scale in (1, 3):
        y = norm(x[PARTS["even"][rank()]] * scale)
    out["norm"] = y.tolist()
    out["cumulative"] = [norm.running_mean.tolist(), norm.running_var.tolist()]
    far = 100 + 0.1 * draw(8, 2, 3, 3).float()
    out["far"] = GlobalBatchNorm2d(2)(far[PARTS["even"][rank()]]).tolist()
    out["half"] = GlobalBatchNorm2d(2)(far[PARTS["even"][rank()]].half()).dtype == torch.float16
    norm.eval()
    out["evaluation"] = norm(x[:1]).tolist()
    return out


def work(number, address, answers):
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", init_method=address, rank=number, world_size=2)
        answers.put((number, checks(PARTS)))
        dist.barrier()
        dist.destroy_process_group()
    except Exception:
        answers.put((number, traceback.format_exc()))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "lightning.pytorch"])  # imported once for both
    address = f"file://{tmp_path_factory.mktemp('group')}/store"
    answers = context.Queue()
    jobs = [context.Process(target=work, args=(i, address, answers), daemon=True) for i in range(2)]
    for job in jobs:
        job.start()
    try:
        got = dict(answers.get(timeout=60) for _ in jobs)
    except queue.Empty:
        pytest.fail("the two processes did not answer within a minute")
    finally:
        for job in jobs:
            job.join(5)
            job.kill()
    for value in got.values():
        assert isinstance(value, dict), value
    return got


def close(got, expected, tolerance=1e-9):
    expected = expected.detach() if isinstance(expected, torch.Tensor) else torch.tensor(expected)
    torch.testing.assert_close(torch.tensor(got, dtype=expected.dtype), expected, rtol=tolerance, atol=tolerance)


def rows(pair, key):
    return pair[0][key] + pair[1][key]


def test_gather_puts_rows_in_the_order_of_ranks(pair):
    for i in range(2):
        assert pair[i]["sizes"] == [1, 2]
        assert pair[i]["labels"] == [0, 0, 1]
        for name in PARTS:
            close(pair[i][f"gather {name}"], draw(8, 3))


@pytest.mark.parametrize("name", PARTS)
def test_gradients_through_gather_and_sum_equal_one_process(pair, name):
    for key, loss in (("gather", coupled), ("sum", spread)):
        x = draw(8, 3).requires_grad_()
        if key == "gather":
            # each process adds the loss of its own rows, and their mean is what is trained on
            (loss(x) / 2).backward()
        else:
            loss(x).backward()
        close(rows(pair, f"{key} gradient {name}"), x.grad)


@pytest.mark.parametrize("name", PARTS)
def test_nt_xent_with_batch_norm_equals_one_process(pair, name):
    one = contrast(network(), draw(8, 2, 6, 6), slice(0, 8))
    two = [pair[i][f"contrast {name}"] for i in range(2)]
    shares = [(p.stop - p.start) / 8 for p in PARTS[name]]
    close((two[0]["loss"] + two[1]["loss"]) / 2, one["loss"])
    close(sum(s * t["accuracy"] for s, t in zip(shares, two, strict=True)), one["accuracy"], 1e-6)
    for t in two:
        assert t["buffers"].keys() == one["buffers"].keys()
        for n, value in one["buffers"].items():
            close(t["buffers"][n], value)
        for mine, theirs in zip(t["gradients"], one["gradients"], strict=True):
            close(mine, theirs)
    assert max(abs(v) for v in one["gradients"][0][0][0][0]) > 1e-4


def test_batch_norm_is_that_of_the_whole_batch(pair):
    plain = nn.BatchNorm2d(2, momentum=None).double()
    x = draw(8, 2, 3, 3)
    plain(x)
    close(rows(pair, "norm"), plain(3 * x))
    close(pair[1]["cumulative"][0], plain.running_mean)
    close(pair[1]["cumulative"][1], plain.running_var)
    close(pair[0]["evaluation"], plain.eval()(x[:1]))


def test_batch_norm_does_not_cancel_far_from_zero(pair):
    far = 100 + 0.1 * draw(8, 2, 3, 3).float()
    close(rows(pair, "far"), nn.BatchNorm2d(2).double()(far.double()), tolerance=1e-3)
    assert pair[0]["half"]


def test_synchronise_changes_the_class_alone():
    model = network()
    keys, layer = list(model.state_dict()), model[1]
    assert synchronise(model) is model and type(layer) is GlobalBatchNorm2d and isinstance(layer, nn.BatchNorm2d)
    assert list(model.state_dict()) == keys
    with pytest.raises(ValueError, match="4D"):
        layer(torch.zeros(2, 3))
    LayerSync().revert(model)
    assert type(model[1]) is nn.BatchNorm2d and type(model[5]) is nn.BatchNorm1d
    assert type(LayerSync().apply(model)[1]) is GlobalBatchNorm2d


def test_one_process_needs_no_group():
    x = draw(4, 3)
    assert (world(), rank(), sizes(x)) == (1, 0, [4]) and gather(x) is x and all_sum(x) is x
