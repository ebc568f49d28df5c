"""QCS and DCS: maps against a slow loop and the authors' numbers, branches, what is left at inference."""

import pytest
import torch
from helpers.reference import golden, images, normal, official_state

from fer_lab.data.faces import FaceBatch
from fer_lab.models import create_model
from fer_lab.models.authors import load_official
from fer_lab.models.layers import watch
from fer_lab.models.qcs import (
    SIZES,
    CrossSimilarity,
    above_minimum,
    csa_maps,
    evidence,
    pairwise_distance,
    similarity,
)


def tokens(b=2, n=4, places=5, d=3, seed=0, dtype=torch.float64):
    return torch.randn(b, n, places, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def slow_maps(qk, form, k):
    """The maps of one quadruplet [4,N,d], by loops over places."""
    partners = {0: (1, 2), 1: (0, 3), 2: (3, 0), 3: (2, 1)}
    n = qk.shape[1]

    def delta(p, q):
        table = torch.tensor([[float((qk[p, i] - qk[q, j]).norm()) for j in range(n)] for i in range(n)])
        return table - table.min()

    maps = []
    for p, (same, other) in partners.items():
        score = torch.zeros(n)
        if form in ("s", "sd"):
            table = delta(same, p)
            table = table.max() - table
            score = score + sum(row / row.norm() for row in table)
        if form in ("d", "sd"):
            weight = k if form == "sd" else 1
            score = score + weight * sum(row / row.norm() for row in delta(other, p))
        maps.append(score.exp() / score.exp().sum())
    return torch.stack(maps)


@pytest.mark.parametrize("form", ["sd", "s", "d"])
def test_maps_agree_with_a_slow_loop(form):
    qk = tokens()
    fast = csa_maps(qk, form, 1.3)
    for one, found in zip(qk, fast, strict=True):
        torch.testing.assert_close(found.float(), slow_maps(one, form, 1.3), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("form", "faces"), [("sd", 4), ("s", 4), ("d", 4), ("dcs", 2)])
def test_maps_are_the_authors(form, faces):
    qk = torch.stack([normal(20 + i, 3, 49, 32) for i in range(faces)], 1)
    maps = csa_maps(qk, "s" if form == "dcs" else form, 1.25, whole_batch=True)
    for i in range(faces):
        reference = golden(f"csa.{form}.{i}")
        worst = (maps[:, i].double() - reference).abs().max()
        assert worst <= 1e-5 * reference.abs().max()


def test_a_map_by_hand():
    # One number a place. Distances between (0, 1) and (0, 3) are [[0, 3], [1, 2]]; Σ = [[3, 0], [2, 1]].
    first, second = torch.tensor([[[0.0], [1.0]]]), torch.tensor([[[0.0], [3.0]]])
    delta = above_minimum(pairwise_distance(first, second))
    assert delta.tolist() == [[[0, 3], [1, 2]]]
    table = similarity(delta)
    assert table.tolist() == [[[3, 0], [2, 1]]]
    mine, theirs = evidence(table)
    # Columns have lengths √13 and 1, rows 3 and √5.
    assert mine[0].tolist() == pytest.approx([3 / 13**0.5, 2 / 13**0.5 + 1])
    assert theirs[0].tolist() == pytest.approx([1 + 2 / 5**0.5, 1 / 5**0.5])
    pair = csa_maps(torch.stack([first, second], 1), "s")
    assert pair[0, 0].tolist() == pytest.approx(mine[0].softmax(0).tolist())


def test_a_distance_of_zero_has_gradient_zero():
    x = torch.zeros(1, 2, 3, requires_grad=True)
    pairwise_distance(x, torch.zeros(1, 2, 3)).sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize("form", ["sd", "s", "d"])
def test_gradients_of_the_maps_are_right(form):
    qk = tokens(b=1, places=4, d=2, seed=3).requires_grad_()
    k = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    used = (qk, k) if form == "sd" else (qk,)
    assert torch.autograd.gradcheck(lambda x, *rest: csa_maps(x, form, *rest), used)


def test_identical_faces_give_finite_maps_and_gradients():
    qk = torch.ones(1, 4, 6, 3, requires_grad=True)
    maps = csa_maps(qk)
    torch.testing.assert_close(maps, torch.full_like(maps, 1 / 6))
    (maps * torch.arange(6.0)).sum().backward()
    assert qk.grad.isfinite().all()


def test_a_map_depends_on_its_own_sample_alone_unless_official():
    qk = tokens(b=3)
    alone = csa_maps(qk[:1])
    torch.testing.assert_close(csa_maps(qk)[:1], alone, rtol=0, atol=0)
    together = csa_maps(qk, whole_batch=True)[:1]
    assert (together - alone).abs().max() > 1e-3
    torch.testing.assert_close(csa_maps(qk[:1], whole_batch=True), alone)


def test_low_precision_tokens_are_measured_in_full():
    qk = tokens(dtype=torch.float32)
    low = qk.bfloat16()
    maps = csa_maps(low)
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps, csa_maps(low.float()), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("shape", "form"), [((1, 3, 5, 2), "sd"), ((1, 2, 5, 2), "sd"), ((4, 5, 2), "s"), ((1, 4, 5, 2), "both")]
)
def test_maps_of_anything_else_are_refused(shape, form):
    with pytest.raises(ValueError, match=r"expected tokens \[B,4,N,d\]"):
        csa_maps(torch.zeros(shape), form)


def test_the_cross_module_follows_its_equations():
    torch.manual_seed(0)
    block = CrossSimilarity(SIZES["tiny"], "sd", official=False).eval()
    with torch.no_grad():
        block.theta.fill_(0.7)
        tokens_ = torch.randn(2, 4, 49, 96)
        x = block.norm1(tokens_)
        qk, v = block.proj(x).split(96, dim=-1)
        maps = csa_maps(qk, "sd", 1 + torch.tanh(torch.tensor(0.7)))
        x = block.norm2(x + maps[..., None] * v)
        torch.testing.assert_close(block(tokens_), x + block.mlp(x))
        torch.testing.assert_close(block.maps(tokens_), maps)


@pytest.mark.parametrize(("name", "faces"), [("qcs", 4), ("dcs", 2)])
def test_paper_size_is_the_authors_model(name, faces):
    model = create_model(name, 7, "paper", official=True).eval()
    report = load_official(model, official_state(f"{name}-7"))
    assert sum(p.numel() for p in model.parameters()) == 66_810_510 + (3 if name == "qcs" else 0)
    assert len(report.ignored) == 32
    assert all(name.endswith("num_batches_tracked") for name in report.untouched)
    batch = torch.stack([images(i, 2) for i in range(faces)], 1)
    with torch.no_grad():
        outputs = torch.cat(model.branch_logits(batch), 1).transpose(0, 1)
        base = model(batch[:, 0])
    reference = golden(f"{name}-7.outputs")
    assert (outputs.double() - reference).abs().max() <= 1e-5 * reference.abs().max().clamp(min=1)
    assert (base.double() - golden(f"{name}-7.base_logits")).abs().max() <= 1e-5 * 2


# ---------------------------------------------------------------------------------------------------------
# Tiny models


def build(name="qcs", classes=7, **options):
    torch.manual_seed(0)
    return create_model(name, classes, **options)


def quads(n=2, faces=4, seed=1):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, faces, 3, 56, 56, generator=g)


def batch(n=2, faces=4):
    labels = torch.arange(n) % 7
    other = (labels + 1) % 7
    return FaceBatch(quads(n, faces), torch.stack([labels, labels, other, other][:faces], 1), torch.zeros(n))


def test_branches_are_what_single_faces_give():
    model, x = build().eval(), quads()
    with torch.no_grad():
        base, cross = model.branch_logits(x)
        assert base.shape == cross.shape == (2, 4, 7)
        for i in range(4):
            torch.testing.assert_close(base[:, i], model(x[:, i]), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.branch_logits(x[:1])[1], cross[:1], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.base.classify(model.embed(x[:, 0])), base[:, 0], atol=1e-5, rtol=1e-5)


def test_nothing_of_the_cross_branch_runs_at_inference():
    model = build().eval()
    ran = []
    for part in (*model.cross, model.cross_branch):
        part.register_forward_hook(lambda module, *_: ran.append(module))
    with torch.no_grad():
        model(quads()[:, 0])
        assert ran == []
        model.branch_logits(quads())
    assert len(ran) == 4
    alone = build(form="none")
    acting = {name for name, _ in alone.named_parameters()}
    left = {name for name, _ in model.named_parameters() if not name.startswith(("cross.", "cross_branch."))}
    assert acting == left


def test_the_loss_is_the_mean_of_all_branches():
    model, given = build(), batch()
    model.eval()
    terms = model.training_losses(given)
    base, cross = model.branch_logits(given.images)
    by_hand = [
        torch.nn.functional.cross_entropy(logits[:, i], given.labels[:, i])
        for logits in (base, cross)
        for i in range(4)
    ]
    torch.testing.assert_close(terms["total"], torch.stack(by_hand).mean())
    assert [terms[f"k{i}"].item() for i in (1, 2, 3)] == [1, 1, 1]
    assert not terms["k1"].requires_grad


def test_the_cross_loss_reaches_the_base_through_the_residual():
    model, given = build(), batch()
    model.eval()
    logits = model.branch_logits(given.images)[1]
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), given.labels.flatten()).backward()
    assert model.base.blocks[0].attention.qkv.weight.grad.abs().sum() > 0
    assert model.base.classify.weight.grad is None
    assert all(one.theta.grad.abs() > 0 for one in model.cross)


@pytest.mark.parametrize("form", ["s", "d", "none"])
def test_other_forms_have_no_idle_parameters(form):
    model = build(form=form)
    terms = model.training_losses(batch())
    terms["total"].backward()
    assert not any(name.startswith("k") for name in terms)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert ("cross" in terms) == (form != "none")


def test_dcs_reads_pairs():
    model = build("dcs").eval()
    base, cross = model.branch_logits(quads(faces=2))
    assert base.shape == cross.shape == (2, 2, 7)
    assert model.batch_kind == "pair"
    with pytest.raises(ValueError, match=r"expected pairs \[B,2,3,56,56\], got \[2, 4, 3, 56, 56\]"):
        model.branch_logits(quads())


def test_wrong_quadruplets_are_refused():
    model = build()
    with pytest.raises(ValueError, match=r"expected quadruplets \[B,4,3,56,56\], got \[2, 3, 3, 56, 56\]"):
        model.branch_logits(quads(faces=3))
    with pytest.raises(ValueError, match="no cross branch"):
        build(form="none").branch_logits(quads())
    for options, message in (
        ({"form": "sds"}, "form must be one of sd, s, d, none, got 'sds'"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"size": "large"}, "size must be one of tiny, paper"),
    ):
        with pytest.raises(ValueError, match=message):
            create_model("qcs", **options)


def test_dropout_acts_where_it_is_asked_for():
    model = build(dropout=0.5).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    x = quads()
    torch.manual_seed(1)
    first = model.branch_logits(x)
    second = model.branch_logits(x)
    torch.testing.assert_close(first[0], second[0])
    assert (first[1] - second[1]).abs().max() > 1e-3


def test_maps_over_the_face():
    model, x = build().eval(), quads()
    with torch.no_grad():
        maps = model.similarity_maps(x)
        own = model.attention_maps(x[:, 0])
        tables = model.matches(x[:, 0], x[:, 1])
        with watch(model.base) as seen:
            model(x[:, 0])
    assert maps.shape == (2, 4, 3, 7, 7)
    torch.testing.assert_close(maps.sum((3, 4)), torch.ones(2, 4, 3))
    assert own["class token"].shape == (2, 4, 7, 7)
    assert own["scales"].shape == (2, 3, 7, 7)
    weights = seen["blocks.1.attention.attend"]
    # Everything but what the class token gives to itself.
    torch.testing.assert_close(own["class token"].sum((2, 3)), 1 - weights[:, :, 0, 0])
    # Place (1, 2) of the second scale is token 1 + 49 + 7 + 2.
    torch.testing.assert_close(own["scales"][:, 1, 1, 2], weights[:, :, 0, 59].mean(1))
    assert tables.shape == (2, 3, 49, 49)
    assert tables.amin((2, 3)).abs().max() < 1e-6
    torch.testing.assert_close(model.matches(x[:, 1], x[:, 0]), tables.transpose(2, 3), atol=1e-5, rtol=1e-5)
