import dataclasses
import math

import pytest
import torch

from fer_lab.data.synthetic import SyntheticFaces
from fer_lab.data.synthetic.generator import set_fingerprint
from fer_lab.experiments.landmarks import (
    TEST_KNOBS,
    TRAINING_KNOBS,
    measure_landmarks,
    ship_landmarks,
    train_landmarks,
)
from fer_lab.models.landmarks import (
    MIRRORED,
    OUTER_CORNERS,
    landmark_error,
    mirror_disagreement,
    predict_landmarks,
    truth_of,
    wing_loss,
)
from fer_lab.models.trunks import mobilefacenet
from fer_lab.models.weights import LANDMARK_WEIGHTS, card_text, load_weights, read_card


@pytest.fixture(scope="module")
def faces():
    return SyntheticFaces(192, seed=5, size=56, **TEST_KNOBS)


@pytest.fixture(scope="module")
def shipped():
    net = mobilefacenet("tiny")
    load_weights(net, LANDMARK_WEIGHTS)
    return net.eval()


# ---------------------------------------------------------------- loss and error


def test_wing_loss_against_a_loop_over_the_formula():
    g = torch.Generator().manual_seed(0)
    predicted, truth = torch.rand(2, 5, 2, generator=g) / 5, torch.rand(2, 5, 2, generator=g) / 5
    w, e, total = 0.05, 0.005, 0.0
    for p, t in zip(predicted.flatten().tolist(), truth.flatten().tolist(), strict=True):
        x = abs(p - t)
        total += w * math.log(1 + x / e) if x < w else x - (w - w * math.log(1 + w / e))
    assert wing_loss(predicted, truth).item() == pytest.approx(total / 20, rel=1e-5)


def test_wing_loss_by_hand_and_without_a_step():
    # w = 0.05, ε = 0.005: w ln 11 at x = w, from where it grows by 1 a unit.
    at = [wing_loss(torch.full((1, 1, 2), x), torch.zeros(1, 1, 2)).item() for x in (0.0, 0.05, 0.45)]
    assert at == pytest.approx([0.0, 0.05 * math.log(11), 0.05 * math.log(11) + 0.4])
    with pytest.raises(ValueError, match=r"\[1, 2\] and \[2, 2\]"):
        wing_loss(torch.zeros(1, 2), torch.zeros(2, 2))


def test_wing_loss_gradient_is_finite_at_zero_and_steeper_near_it():
    x = torch.tensor([0.0, 0.01, 0.2]).view(1, 3, 1).requires_grad_()
    wing_loss(x, torch.zeros(1, 3, 1)).backward()
    slopes = x.grad.flatten().abs()
    assert torch.isfinite(slopes).all()
    assert slopes[1] > 2 * slopes[2] > 0


def test_error_is_in_percent_of_the_outer_corners_distance():
    truth = torch.zeros(2, 68, 2)
    truth[:, OUTER_CORNERS[1], 0] = 0.5
    predicted = truth.clone()
    predicted[1, :, 1] += 0.05
    assert landmark_error(predicted, truth).tolist() == pytest.approx([0.0, 10.0])
    torch.testing.assert_close(landmark_error(7 * predicted, 7 * truth), landmark_error(predicted, truth))
    with pytest.raises(ValueError, match=r"\[B,68,2\]"):
        landmark_error(predicted[0], truth[0])


def test_photographs_have_no_landmarks(faces):
    with pytest.raises(ValueError, match="has no landmarks"):
        truth_of(dataclasses.replace(faces, landmarks=None))
    assert 0 < truth_of(faces)[:, 30].mean() < 1


# ---------------------------------------------------------------- mirror images


def test_mirrored_points_change_sides_and_come_back(faces):
    table = torch.tensor(MIRRORED)
    assert table.sort().values.tolist() == list(range(68))
    assert table[table].tolist() == list(range(68))
    # Rendered faces are nearly symmetric: the mirrored mean face lies on the mean face.
    mean = truth_of(faces).mean(0)
    mirrored = mean[table] * torch.tensor([-1.0, 1.0]) + torch.tensor([1.0, 0.0])
    assert (mirrored - mean).norm(dim=1).max() < 0.03
    assert (mirrored - mean[torch.randperm(68)]).norm(dim=1).mean() > 0.1


class Constant(torch.nn.Module):
    """Finds the same points in every picture."""

    image_size = 56

    def __init__(self, points):
        super().__init__()
        self.found = torch.nn.Parameter(points)

    def points(self, images):
        return self.found.expand(len(images), 68, 2)


def test_mirror_disagreement_of_a_fixed_face(faces):
    points = truth_of(faces)[0].clone()
    table = list(MIRRORED)
    symmetric = (points + torch.stack([1 - points[table, 0], points[table, 1]], 1)) / 2
    assert mirror_disagreement(Constant(symmetric), faces).max() < 1e-3
    shifted = symmetric + torch.tensor([0.1, 0.0])
    apart = (symmetric[OUTER_CORNERS[0]] - symmetric[OUTER_CORNERS[1]]).norm()
    torch.testing.assert_close(mirror_disagreement(Constant(shifted), faces)[0], 100 * 0.2 / apart)


# ---------------------------------------------------------------- what ships


def test_shipped_weights_find_landmarks_on_unseen_people(shipped, faces):
    """Fails when the network or the renderer has changed since `make weights`."""
    score = measure_landmarks(shipped, faces, truth_of(faces).mean(0))
    assert score["error"] < 5.0
    assert score["mean_shape_error"] > 10.0
    assert score["error"] < score["error_of_the_worst_5_percent"] < 10.0
    card = read_card(LANDMARK_WEIGHTS)
    learned = {key: card["learned_from"][key] for key in ("n", "seed", "size", "num_classes")}
    # Another fingerprint means that the renderer draws other faces since: `make weights` again.
    assert card["fingerprint"] == set_fingerprint(**learned, **TRAINING_KNOBS)
    claimed = card["score"]
    assert score["error"] == pytest.approx(claimed["error"], abs=0.5)
    assert claimed["error"] < 5.0
    assert {name: TEST_KNOBS[name] for name in ("rotation", "head_turn", "occlusion")} == {
        "rotation": 20.0,
        "head_turn": 20.0,
        "occlusion": 0.5,
    }


def test_predictions_do_not_depend_on_the_batch_and_leave_the_modes(shipped, faces):
    few = faces.subset(range(7))
    shipped.stem.train()
    halves = torch.cat([predict_landmarks(shipped, few.subset(part)) for part in (range(3), range(3, 7))])
    torch.testing.assert_close(halves, predict_landmarks(shipped, few), rtol=1e-4, atol=1e-5)
    assert shipped.stem.training
    assert not shipped.training
    shipped.eval()


def test_a_short_training_beats_the_mean_face():
    faces = SyntheticFaces(128, seed=7, size=56, rotation=30.0)
    net = train_landmarks(faces, epochs=8, batch_size=16)
    assert not net.training
    truth = truth_of(faces)
    chance = landmark_error(truth.mean(0).expand_as(truth), truth).mean()
    assert landmark_error(predict_landmarks(net, faces), truth).mean() < 0.8 * chance


def test_shipping_writes_weights_and_card(tmp_path):
    path = tmp_path / "sets" / "landmarks.safetensors"
    card = ship_landmarks(path, count=64, epochs=1, seed=3, measured_on=64)
    assert card["command"] == "fer-lab landmarks --faces 64 --epochs 1 --seed 3"
    assert card["learned_from"]["n"] == 64
    assert set(card["score"]) >= {"error", "mean_shape_error", "mirror_disagreement"}
    text = path.with_suffix(".md").read_text(encoding="utf-8")
    assert text == card_text(card)
    assert f"error | {card['score']['error']:.3f} |" in text
    net = mobilefacenet("tiny")
    assert load_weights(net, path) == card
    # Measured as it ships: the card's score is that of the file's half-precision weights.
    judged = SyntheticFaces(64, seed=4, size=56, **TEST_KNOBS)
    error = landmark_error(predict_landmarks(net, judged), truth_of(judged)).mean().item()
    assert card["score"]["error"] == pytest.approx(error, abs=6e-4)
