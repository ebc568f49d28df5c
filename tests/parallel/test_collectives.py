"""Two processes with half a batch each against one with the whole of it."""

import pytest
import torch
from helpers import together

from fer_lab.models.dan import partition_loss
from fer_lab.parallel import alone, batchnorm_together, collectives, mean_over_processes
from fer_lab.parallel.collectives import count_processes

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("pieces")
    together.in_two_processes("pieces", folder)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_a_mean_over_the_processes_and_its_gradient(found):
    assert [one["mean"].item() for one in found] == [5.5, 5.5]
    # Σ over the processes of rank + 1, by the two that the mean is over: 3 / 2 for everybody.
    assert [one["gradient"].item() for one in found] == [1.5, 1.5]
    assert [one["processes"] for one in found] == [2, 2]


def test_a_process_by_itself_waits_for_nobody(found):
    assert [one["processes alone"] for one in found] == [1, 1]
    assert [one["mean alone"].item() for one in found] == [1.0, 10.0]


@pytest.mark.parametrize("name", together.NORMS)
def test_batchnorm_sees_the_whole_batch(found, name):
    make, whole = together.NORMS[name]
    x = whole.clone().requires_grad_()
    expected = together.norm_step(make(), x, together.numbers(*whole.shape, seed=1))
    halves = [one[name] for one in found]
    assert halves[0].keys() == expected.keys()
    close = {"rtol": 1e-2, "atol": 2e-2} if whole.dtype == torch.bfloat16 else CLOSE
    for key in ("y", "x gradient"):
        assert halves[0][key].dtype == whole.dtype
        torch.testing.assert_close(torch.cat([half[key] for half in halves]), expected[key], **close)
    for key in expected.keys() - {"y", "x gradient"}:
        if key.endswith("gradient"):  # a sum over the faces, each process has its part
            torch.testing.assert_close(halves[0][key] + halves[1][key], expected[key], **close)
        else:
            torch.testing.assert_close(halves[0][key], expected[key], **close)
            assert torch.equal(halves[0][key], halves[1][key])
    # Half a batch would have given something else.
    alone_with_half = together.norm_step(make(), together.share(whole, 0), together.numbers(*whole.shape)[:4])
    assert (alone_with_half["y"] - halves[0]["y"]).abs().max() > 10 * close["atol"]


def test_a_loss_of_a_variance_over_the_batch_is_that_of_the_whole(found):
    whole = together.HEADS.clone().requires_grad_()
    loss = partition_loss(whole)
    loss.backward()
    assert [one["partition"].item() for one in found] == pytest.approx([loss.item()] * 2, rel=1e-6)
    # Every process differentiates the whole loss; gradients are averaged, so that its own part counts twice.
    gradient = torch.cat([one["partition gradient"] for one in found]) / 2
    torch.testing.assert_close(gradient, whole.grad, rtol=1e-5, atol=1e-9)


def test_one_process_computes_as_if_nothing_were_there():
    x = torch.randn(4, 3, 2, 2)
    norm = torch.nn.BatchNorm2d(3)
    assert count_processes() == 1
    assert mean_over_processes(x) is x
    with batchnorm_together(torch.nn.Sequential(norm)):
        assert type(norm) is torch.nn.BatchNorm2d
    with alone():
        assert count_processes() == 1


def test_batchnorms_are_put_back_whatever_happens(monkeypatch):
    monkeypatch.setattr("fer_lab.parallel.collectives.count_processes", lambda: 2)
    own = type("Own", (torch.nn.BatchNorm2d,), {})
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.BatchNorm2d(3), own(3))
    before = [dict(module.__dict__) for module in model]

    def fail():
        with batchnorm_together(model):
            kinds = [type(module).__name__ for module in model]
            assert kinds == ["_Shared1d", "_Shared2d", "Own"]
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [type(module) for module in model] == [torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, own]
    assert [dict(module.__dict__) for module in model] == before


def test_the_form_for_gpus_computes_alone_as_if_there_were_no_others():
    x = torch.randn(4, 3, 2, 2)
    plain, shared = torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    shared.__class__ = collectives._SharedOnGPU
    assert torch.equal(shared(x), plain(x))
    assert torch.equal(shared.running_mean, plain.running_mean)


def test_batchnorms_in_eval_mode_use_their_running_statistics(monkeypatch):
    monkeypatch.setattr("fer_lab.parallel.collectives.count_processes", lambda: 2)
    norm = torch.nn.BatchNorm2d(3).eval()
    norm.running_mean += 1
    x = torch.randn(4, 3, 2, 2)
    with batchnorm_together(torch.nn.Sequential(norm)):
        torch.testing.assert_close(norm(x), (x - 1) / (1 + norm.eps) ** 0.5)
