"""README's tables are what the results store says."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fer_lab.data import FaceRequest
from fer_lab.evaluation import evaluate
from fer_lab.experiments import Training, ferplus, tables
from fer_lab.intervals import crossed_interval
from fer_lab.models import create_model
from fer_lab.runs import Predictions, ResultsStore

ROOT = Path(__file__).parents[2]
# 30 faces of one class and 10 of another.
LABELS = np.repeat([0, 1], (30, 10))


def answered(wrong):
    """Predictions of which those of some faces are wrong."""
    said = LABELS.copy()
    said[list(wrong)] = 1 - said[list(wrong)]
    return Predictions(np.eye(2)[said], LABELS, ("neutral", "happiness"), "ferplus", "f")


@pytest.fixture
def store(tmp_path):
    """Two seeds of DAN with two heads and one of the baseline on FER+, and a trunk, which is no result."""
    store = ResultsStore(tmp_path)
    for method, variant, seed, wrong in (
        ("dan", "two heads", 0, range(26, 34)),
        ("dan", "two heads", 1, range(28, 32)),
        ("baseline", "plain", 0, range(10)),
        ("baseline", "trunk", 0, range(36)),
    ):
        predictions = answered(wrong)
        accuracy = predictions.correct.mean()
        recall = np.mean([predictions.correct[label == LABELS].mean() for label in (0, 1)])
        metrics = pd.DataFrame(
            {
                "metric": ["accuracy", "mean_class_recall"],
                "value": [accuracy, recall],
                "low": [accuracy - 0.05, 0.1],
                "high": [accuracy + 0.04, 0.9],
            }
        )
        request = Training(model=method, options={"num_heads": 2} if method == "dan" else {})
        store.record(
            method=method,
            size="tiny",
            variant=variant,
            dataset="ferplus",
            fingerprint="f",
            split="valid",
            seed=seed,
            minutes=1 + seed,
            device="cpu",
            command=request.command(),
            request=request.to_json(),
            metrics=metrics,
            predictions=predictions,
        )
    return store


def test_a_row_a_variant_in_the_books_order(store):
    lines = tables.tables(store)["ferplus"].splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| ResNet-18 `tiny`", "| DAN `tiny`"]
    count = sum(p.numel() for p in create_model("dan", 8, num_heads=2).parameters()) / 1e6
    right = np.stack([answered(range(26, 34)).correct, answered(range(28, 32)).correct]).astype(float)
    accuracy = tables.in_percent(*crossed_interval(right))
    assert accuracy.startswith("85.0 [")
    # Recalls are 26/30 and 6/10, then 28/30 and 8/10.
    recall = tables.in_percent(*crossed_interval(right * np.where(LABELS, 2.0, 40 / 60)))
    assert recall.startswith("80.0 [")
    epochs = f"{create_model('dan', 8).recipes['smoke'].epochs}"
    assert lines[2].split(" | ")[5] == "75.0 [70.0, 79.0]"
    assert lines[3].split(" | ")[1:7] == ["two heads", f"{count:.2f} M", epochs, "2", accuracy, recall]
    assert lines[3].endswith("| 1.5 |")


def test_a_network_on_another_trunk_is_named_by_it_and_has_its_own_table(store):
    tables_before = tables.tables(store)
    assert len(tables_before["face_trunk"].splitlines()) == 2
    for asked in ferplus.face_trunk().values():
        if asked.seed == 0:
            answers = answered(range(26, 34))
            key = {"method": asked.model, "size": "tiny", "variant": asked.variant, "seed": 0, "split": "valid"}
            facts = {"dataset": "ferplus", "fingerprint": "f", "device": "cpu", "minutes": 1.0}
            facts |= {"command": asked.command(), "request": asked.to_json()}
            store.record(**key, **facts, metrics=evaluate(answers), predictions=answers)
    made = tables.tables(store)
    assert made["ferplus"] == tables_before["ferplus"]
    names = [line.split(" | ")[0] for line in made["face_trunk"].splitlines()[2:]]
    assert names == ["| faceres and one linear layer `tiny`"] * 2 + ["| DAN on faceres `tiny`"] * 2


def test_the_board_says_what_two_habits_add(tmp_path):
    store, trunk = ResultsStore(tmp_path), Training(model="poster", faces=FaceRequest(dataset="ferplus"))
    for seed, wrong, holdout in ((0, 10, [0.5, 0.9, 0.8]), (1, 4, [0.5, 0.6, 0.7])):
        for method, start in (("qcs", trunk), ("patterns", ferplus.FACE_TRUNK)):
            asked = Training(model=method, faces=trunk.faces, seed=seed, weights=start, variant="v")
            answers = answered(range(wrong))
            store.record(
                method=method,
                size="tiny",
                variant="v",
                dataset="ferplus",
                fingerprint="f",
                split="valid",
                seed=seed,
                minutes=1.0,
                device="cpu",
                command=asked.command(),
                request=asked.to_json(),
                metrics=evaluate(answers),
                predictions=answers,
                holdout=holdout,
            )
    _, _, *rows = (
        line.strip("| ").split(" | ") for line in tables.board(store, "ferplus", "valid").splitlines()
    )
    # Right on 30 and 36 of 40: the better seed is 7.5 points above the mean. The best epochs are 10 and 0
    # points above the last.
    assert rows[0][:5] == ["QCS `tiny`", "v", "ferplus, synthetic", "91.41", "2"]
    assert rows[0][5].startswith("82.5 [")
    assert rows[0][6:] == ["+7.5", "+5.0"]
    # A method that is not the book's comes last.
    assert rows[1][:3] == ["patterns `tiny`", "v", "ferplus, VGGFace2"]
    assert len(rows) == 2


def test_only_blocks_are_filled():
    text = "a\n<!-- results: one -->\nold\nolder\n<!-- end -->\nb <!-- end -->"
    assert tables.fill(text, {"one": "NEW"}) == "a\n<!-- results: one -->\nNEW\n<!-- end -->\nb <!-- end -->"
    with pytest.raises(ValueError, match="no table 'one'; there are two"):
        tables.fill(text, {"two": ""})


def test_readme_and_docs_have_the_tables_of_the_store():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    texts = {page: page.read_text(encoding="utf-8") for page in pages}
    made = tables.tables(ResultsStore(ROOT / "figures" / "results"))
    assert {name for text in texts.values() for _, name, _ in tables.BLOCK.findall(text)} == set(made)
    for page, text in texts.items():
        assert tables.fill(text, made) == text, page


def test_speed_has_a_row_a_model_and_its_gain_over_plain():
    paths = [
        ("train", "plain", 5.0),
        ("train", "default", 12.5),
        ("inference", "plain", 1000),
        ("inference", "default", 4000),
    ]
    table = pd.DataFrame(
        {"model": "qcs", "size": "paper", "mode": mode, "path": path, "images_per_s": rate}
        for mode, path, rate in paths
    ).assign(parameters_m=[9.0, 9.0, 1.5, 1.5], gflop_per_image=[8.0, 8.0, 2.25, 2.25])
    last = tables.speed(table).splitlines()[-1]
    assert last == "| QCS `paper` | 1.50 M | 2.25 | 5.0 | 12.5 (2.5×) | 1,000 | 4,000 (4.0×) |"


def test_onnx_is_held_against_the_folded_network():
    columns = ["model", "size", "difference", "plain", "folded", "onnx"]
    table = pd.DataFrame([["qcs", "paper", 3.4e-7, 1.24, 20.4, 51.0]], columns=columns)
    assert tables.onnx(table).splitlines()[-1] == "| QCS `paper` | 3e-07 | 1.2 | 20 | 51 (2.5×) |"


def test_compiled_says_what_is_gained_and_how_long_it_takes():
    rows = [
        ("train", "default", 100.0, 0.1),
        ("train", "compiled", 85.0, 31.4),
        ("inference", "default", 16.0, 0.2),
        ("inference", "compiled", 24.0, 9.6),
    ]
    table = pd.DataFrame(rows, columns=["mode", "path", "images_per_s", "first_step_s"])
    last = tables.speed(table.assign(model="dan", size="tiny"), "default", "compiled").splitlines()[-1]
    assert last == "| DAN `tiny` | 100 | 85 (0.85×) | 31 s | 16.0 | 24 (1.50×) | 10 s |"
