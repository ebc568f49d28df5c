"""Diagrams: the shapes in the boxes are the model's own, and mistakes in a diagram are refused."""

import pytest
import torch

from fer_lab import create_model, figures
from fer_lab.figures.diagrams import Box, diagram
from fer_lab.models.layers import output_shapes


def words(fig):
    return [text.get_text() for text in fig.axes[0].texts]


def shapes_of(name, **options):
    images = torch.zeros(1, 4, 3, 56, 56) if name == "qcs" else torch.zeros(1, 3, 56, 56)
    return output_shapes(create_model(name, **options), images)


@pytest.mark.parametrize(
    ("diagram", "name", "expected"),
    [
        ("dan", "dan", ["ResNet-18\n128 × 7 × 7", "class centers\n7 × 128"]),
        ("dan_head", "dan", ["conv 1×1\n32 × 7 × 7", "conv 3×1\n128 × 7 × 7"]),
        ("triplet_center", "triplet_center", ["pixel-wise map\n1 × 7 × 7"]),
        ("poster", "poster", ["+ class tokens\n100 × 96", "gate, linear\n7 logits"]),
        ("cross_block", "poster", ["linear map over\nall 100 tokens", "queries"]),
        ("qcs", "qcs", ["four faces\n4 × 3 × 56 × 56", "tokens\n3 × 49 × 96"]),
        ("quadruplet", "qcs", ["anchor\n49 × 96", "D: how far"]),
    ],
)
def test_the_boxes_have_the_models_own_shapes(diagram, name, expected):
    drawn = words(figures.method_diagram(diagram, shapes_of(name)))
    assert set(expected) <= set(drawn)


def test_another_model_gives_another_diagram():
    drawn = words(figures.method_diagram("dan", shapes_of("dan", num_heads=8, num_classes=5)))
    heads = {"heads 2 … 8\n128 each", "log-softmax\nover the heads\n8 × 128"}
    assert heads | {"linear,\nBatchNorm\n5 logits", "class centers\n5 × 128"} <= set(drawn)


def test_posters_narrow_tokens_are_made_from_the_widest_and_not_from_each_other():
    (ax,) = figures.method_diagram("poster", shapes_of("poster")).axes
    x, y = next(text.get_position() for text in ax.texts if text.get_text().startswith("+ class tokens"))
    starts = [patch.get_path().vertices[0] for patch in ax.patches if not hasattr(patch, "get_height")]
    assert sum(0 < start[0] - x < 0.6 and abs(start[1] - y) < 0.05 for start in starts) == 3


def test_no_box_covers_another_or_leaves_the_picture():
    for name, diagrams in (
        ("dan", ("dan", "dan_head")),
        ("triplet_center", ("triplet_center",)),
        ("poster", ("poster", "cross_block")),
        ("qcs", ("qcs", "quadruplet")),
    ):
        for one in diagrams:
            fig = figures.method_diagram(one, shapes_of(name))
            figures.png(fig)  # lays it out
            (ax,) = fig.axes
            boxes = [patch.get_window_extent() for patch in ax.patches if hasattr(patch, "get_height")]
            frame = ax.get_window_extent()
            for i, box in enumerate(boxes):
                assert frame.x0 <= box.x0 + 1
                assert box.x1 <= frame.x1 + 1
                assert not any(box.overlaps(other) for other in boxes[:i])
            texts = [text for text in ax.texts if text.get_zorder() == 3 and "\n" in text.get_text()]
            for text in texts:
                words_at = text.get_window_extent()
                assert any(box.x0 <= words_at.x0 and words_at.x1 <= box.x1 for box in boxes)
            assert len(texts) >= 4


def test_mistakes_are_refused():
    with pytest.raises(ValueError, match="cross_block"):
        figures.method_diagram("dann", {})
    boxes = {"a": Box(0, 0, "a {trunk}"), "b": Box(1, 0, "b")}
    with pytest.raises(ValueError, match="a box names 'trunk'"):
        diagram(boxes, ("a > b",), {"image": (1, 3)}, "")
    boxes["a"] = Box(0, 0, "a {image:1}")
    with pytest.raises(ValueError, match="no box c; there are a, b"):
        diagram(boxes, ("a > c",), {"image": (1, 3)}, "")
    assert words(diagram(boxes, ("a > b: why",), {"image": (1, 3)}, "")) == ["a 3", "b", "why"]
