import pytest
import torch
from torch import nn

from fer_lab.models.layers import Attend, SEGate, once, watch


class Net(nn.Module):
    def __init__(self, fail=False):
        super().__init__()
        self.attend = Attend()
        self.fail = fail

    def forward(self, q, k, v):
        if self.fail:
            self.attend(q, k, v)
            raise RuntimeError("broken model")
        return self.attend(q, k, v)


def qkv():
    g = torch.Generator().manual_seed(0)
    return [torch.randn(2, 4, n, 8, generator=g) for n in (5, 7, 7)]


def test_attention_is_the_softmax_formula():
    q, k, v = qkv()
    expected = torch.softmax(q @ k.transpose(-2, -1) / 8**0.5, -1) @ v
    torch.testing.assert_close(Attend()(q, k, v), expected)


def test_watching_changes_nothing_but_shows_the_weights():
    net, (q, k, v) = Net(), qkv()
    plain = net(q, k, v)
    with watch(net) as maps:
        watched = net(q, k, v)
    torch.testing.assert_close(watched, plain)
    weights = maps["attend"]
    assert weights.shape == (2, 4, 5, 7)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 5))
    torch.testing.assert_close(weights @ v, plain)


def test_bfloat16_on_a_processor_takes_the_explicit_path(monkeypatch):
    q, k, v = qkv()
    exact = Attend()(q, k, v)

    def fused(*_args, **_kwargs):
        raise AssertionError("this kernel's backward pass is several times slower")

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", fused)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = Attend()(q, k, v)
    torch.testing.assert_close(rounded.float(), exact, rtol=0.02, atol=0.02)
    rounded = Attend()(*(x.bfloat16() for x in (q, k, v)))
    torch.testing.assert_close(rounded.float(), exact, rtol=0.02, atol=0.02)
    with pytest.raises(AssertionError, match="slower"):
        Attend()(q, k, v)


@pytest.mark.parametrize("fail", [False, True])
def test_everything_is_put_back(fail):
    net = Net(fail)
    try:
        with watch(net):
            net(*qkv())
    except RuntimeError:
        assert fail
    assert not net.attend.watched
    assert not net.attend.probe._forward_hooks


def test_a_model_without_attention_cannot_be_watched():
    with pytest.raises(ValueError, match="no softmax attention"), watch(nn.Linear(2, 2)):
        pass


def test_a_module_computes_an_input_once_while_it_is_asked_to():
    norm = nn.BatchNorm1d(3)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    with once(norm):
        first = norm(x)
        assert norm(x) is first
        assert norm(x.view(4, 3)) is first
        assert norm(x + 1) is not first
    assert norm.num_batches_tracked == 2
    assert norm(x) is not first
    assert norm.num_batches_tracked == 3


def test_weights_have_a_gradient_in_training_alone():
    net, (q, k, v) = Net(), qkv()
    q.requires_grad_()
    with watch(net) as maps:
        net(q, k, v)
        assert maps["attend"].requires_grad
        net.eval()(q, k, v)
        assert not maps["attend"].requires_grad


def test_se_gate_against_its_formula():
    gate = SEGate(6)
    x = torch.randn(2, 6)
    hidden = (x @ gate.squeeze.weight.T + gate.squeeze.bias).clamp(min=0)
    expected = x * torch.sigmoid(hidden @ gate.excite.weight.T + gate.excite.bias)
    torch.testing.assert_close(gate(x), expected)
