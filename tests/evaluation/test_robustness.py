import pytest
import torch

from fer_lab.data.augmentation import prepare
from fer_lab.data.synthetic import SyntheticFaces
from fer_lab.evaluation.metrics import predict
from fer_lab.evaluation.robustness import accuracy_by_knob, accuracy_by_resolution, shrunk
from fer_lab.intervals import binomial_interval
from fer_lab.models import Method, create_model


@pytest.fixture(scope="module")
def faces():
    return SyntheticFaces(64, seed=1, size=56)


def test_what_is_shrunk_loses_detail_and_keeps_size_labels_and_truth(faces):
    some = faces.subset(range(10, 30))
    small = shrunk(some, 50)
    assert small.images.shape == some.images.shape
    assert small.images.dtype == torch.uint8
    assert torch.equal(small.labels, some.labels)
    assert torch.equal(small.landmarks, some.landmarks)
    assert torch.equal(small.region_masks([3]), some.region_masks([3]))
    assert small.fingerprint != some.fingerprint
    detail = [(one.images.float().diff(dim=3)).abs().mean().item() for one in (some, small, shrunk(some, 25))]
    assert detail[0] > 1.1 * detail[1] > 1.2 * detail[2]
    # The mean brightness of every face stays.
    means = [one.images.float().mean((1, 2, 3)) for one in (some, small)]
    torch.testing.assert_close(*means, rtol=0.01, atol=0.5)


def test_whole_faces_stay_themselves(faces):
    assert shrunk(faces, 100) is faces


@pytest.mark.parametrize("percent", [0, 101, 5])
def test_a_share_that_leaves_nothing_is_refused(faces, percent):
    with pytest.raises(ValueError, match=rf"1…100 .* 4 of 56 pixels, got {percent}"):
        shrunk(faces, percent)


class Sharp(Method):
    """Says "happiness" where there is detail and "neutral" where there is none."""

    threshold = 0.0

    def __init__(self):
        super().__init__(7, "tiny")
        self.scale = torch.nn.Parameter(torch.ones(()))

    def embed(self, images):
        return images.diff(dim=3).abs().mean((1, 2, 3))[:, None] * self.scale

    def forward(self, images):
        detail = self.embed(images) - self.threshold
        return torch.cat([torch.zeros_like(detail), detail, detail.new_full((len(detail), 5), -9.0)], dim=1)


def test_accuracy_has_a_row_for_each_resolution(faces):
    happy = faces.subset(faces.labels == 1)
    model = Sharp()
    table = accuracy_by_resolution(model, happy, (75, 50))
    assert table["metric"].tolist() == ["accuracy_at_resolution_75", "accuracy_at_resolution_50"]
    assert table["value"].tolist() == [1.0] * 2
    sharp, soft = (prepare(shrunk(happy, p).images, 56).diff(dim=3).abs().mean().item() for p in (100, 35))
    model.threshold = (sharp + soft) / 2
    values = accuracy_by_resolution(model, happy, (100, 35))["value"].tolist()
    assert values[0] > 0.8
    assert values[1] < 0.2


def test_the_lowest_resolution_still_reaches_the_model(faces):
    table = accuracy_by_resolution(create_model("baseline"), faces, (35,))
    assert 0 <= table["low"].item() <= table["value"].item() <= table["high"].item() <= 1


def test_a_knob_measures_each_model_on_the_same_turned_faces():
    torch.manual_seed(0)
    models = {"one": create_model("baseline"), "two": create_model("baseline")}
    table = accuracy_by_knob(
        models, {"scale_range": (0.6, 1.0), "grey": (0,)}, num_faces=24, seed=3, imbalance=0.0
    )
    assert list(table["knob"]) == ["scale_range"] * 4 + ["grey"] * 2
    faces = SyntheticFaces(24, seed=3, size=56, imbalance=0.0, scale_range=(0.6, 0.6))
    for row in table[(table["knob"] == "scale_range") & (table["level"] == 0.6)].itertuples():
        right = predict(models[row.model], faces).correct
        assert row.value == right.mean()
        assert (row.low, row.high) == binomial_interval(int(right.sum()), 24)
    with pytest.raises(ValueError, match="unknown knob spin"):
        accuracy_by_knob(models, {"spin": (1,)}, num_faces=8)
    with pytest.raises(ValueError, match="one image size"):
        accuracy_by_knob({"a": models["one"], "b": create_model("baseline", 8)}, {"grey": (0,)})
