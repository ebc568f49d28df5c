import pytest
import torch
from helpers.reference import assert_agrees, images, official_state

from fer_lab.models import create_model
from fer_lab.models.authors import load_official
from fer_lab.models.authors.dan import dan_naming


@pytest.fixture(scope="module")
def state():
    return official_state("dan")


@pytest.fixture(scope="module")
def model(state):
    model = create_model("dan", 7, "paper")
    load_official(model, state)
    return model.eval()


@torch.no_grad()
def test_dan_agrees_with_the_authors_code(model):
    features = model.trunk(images(0, 2))
    heads = model.head_outputs(features)
    assert_agrees(features.mean((2, 3))[:, :16], "dan.features_mean")
    assert_agrees(heads[:, :, :16], "dan.heads")
    assert_agrees(model(images(0, 2)), "dan.logits")


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("features.7.1.conv2.weight", "trunk.layer4.1.conv2.weight"),
        ("features.2.weight", None),
        ("cat_head3.sa.conv_1x3.0.weight", "heads.3.spatial.row.0.weight"),
        ("cat_head0.ca.attention.3.bias", "heads.0.channel.excite.bias"),
        ("cat_head0.ca.attention.2.bias", None),
        ("cat_head4.sa.conv1x1.0.weight", None),
        ("bn.running_var", "fusion.norm.running_var"),
    ],
)
def test_names(state, model, name, ours):
    assert dan_naming(model, state).rename(name) == ours
