"""Training of the tiny landmark network that ships, on rendered faces, whose landmarks are known.

POSTER's second stream is such a network. The authors' weights are in no package index, so `fer-lab landmarks`
trains one, measures it on other people, and writes it with its card.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import OneCycleLR

from fer_lab._files import write_text
from fer_lab._progress import progress as progress_bar
from fer_lab.data.augmentation import Augmentation
from fer_lab.data.faces import FaceSet
from fer_lab.data.loader import Loader
from fer_lab.data.synthetic import SyntheticFaces
from fer_lab.models.landmarks import landmark_error, mirror_disagreement, predict_landmarks, truth_of, wing_loss
from fer_lab.models.method import Method
from fer_lab.models.trunks import LandmarkHead, MobileFaceNet, mobilefacenet
from fer_lab.models.weights import card_text, check_target, read_card, save_model

# Training faces: people, light and camera as different as the renderer can make them.
TRAINING_KNOBS: dict[str, Any] = {
    "intra_class_variance": 0.6,
    "inter_class_similarity": 0.3,
    "imbalance": 0.0,
    "rotation": 30.0,
    "head_turn": 25.0,
    "scale_range": (0.75, 1.3),
    "shift": 0.12,
    "lighting": 1.0,
    "background": 1.0,
    "occlusion": 0.4,
    "blur": 1.2,
    "noise": 0.05,
    "grey": 0.3,
    "faces_per_subject": 2.0,
}
# Test faces: other people, tilted by up to 20°, turned, half of them partly covered.
TEST_KNOBS: dict[str, Any] = {"rotation": 20.0, "head_turn": 20.0, "occlusion": 0.5}
TEST_KNOBS |= {"imbalance": 0.0, "faces_per_subject": 2.0}
RATE = 3e-3


def train_landmarks(faces: FaceSet, *, epochs: int = 12, batch_size: int = 64, seed: int = 0) -> MobileFaceNet:
    """Train a tiny landmark network on all the rendered faces, on the CPU; it comes back in eval mode.

    AdamW's learning rate rises to `RATE` for a fifth of the run and falls by a cosine. The seed is that of the
    weights and of the order of faces. Raises ValueError for faces without landmarks, or too few for a batch.
    """
    truth = truth_of(faces)
    torch.manual_seed(seed)
    net = mobilefacenet("tiny")
    with torch.no_grad():  # the first guess is the mean face
        assert isinstance(net.head, LandmarkHead)
        net.head.norm.bias.copy_(truth.mean(0).flatten())
        net.head.norm.weight.copy_(truth.std(0).flatten())
    net.to(memory_format=torch.channels_last).train()
    colors = Augmentation(brightness=0.2, contrast=0.3, saturation=0.5, hue=0.1)
    loader = Loader(
        faces, batch_size=batch_size, size=net.image_size, augmentation=colors, seed=seed, drop_last=True
    )
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=0.01)
    steps = epochs * len(loader)
    schedule = OneCycleLR(optimizer, RATE, total_steps=steps + 1, pct_start=0.2, cycle_momentum=False)
    with progress_bar(description="landmarks", total=steps) as bar:
        for epoch in range(epochs):
            loader.set_epoch(epoch)
            for batch in loader:
                loss = wing_loss(net.points(batch.images), truth[batch.indices])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.update()
    return net.to(memory_format=torch.contiguous_format).eval()


def measure_landmarks(net: MobileFaceNet, faces: FaceSet, mean_shape: torch.Tensor) -> dict[str, float]:
    """Errors of the network on rendered faces, in % of the distance between the eyes' outer corners.

    All are means over the faces, but error_of_the_worst_5_percent, which their errors reach or exceed.
    mean_shape_error is the chance level, that of `mean_shape` [68,2], the mean over the training faces.
    """
    truth = truth_of(faces)
    errors = landmark_error(predict_landmarks(net, faces), truth)
    return {
        "error": errors.mean().item(),
        "error_of_the_worst_5_percent": errors.quantile(0.95).item(),
        "mean_shape_error": landmark_error(mean_shape.expand_as(truth), truth).mean().item(),
        "mirror_disagreement": mirror_disagreement(net, faces).mean().item(),
    }


def ship_landmarks(
    path: Path,
    *,
    count: int = 12_000,
    epochs: int = 10,
    seed: int = 0,
    measured_on: int = 1000,
    photographs: FaceSet | None = None,
    knobs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train the tiny landmark network, measure it on other people, and write it with its card → the card.

    `path` is as `ship` takes it. `count` and `knobs` are those of the training faces; the knobs are
    `TRAINING_KNOBS` by default. `seed` is that of the weights and the training faces; the `measured_on` test
    faces take the next one. On `photographs`, whose landmarks nobody knows, `mirror_disagreement` is measured
    as well. Raises ValueError for too few faces, an unknown knob, or another suffix than .safetensors, and
    FileExistsError for a Markdown file of this name that is no card.
    """
    check_target(path, card=True)
    words = "".join(f" --knob {name}={value}" for name, value in (knobs or {}).items())
    knobs = TRAINING_KNOBS if knobs is None else knobs
    learned = SyntheticFaces(count, seed=seed, size=56, **knobs)
    judged = SyntheticFaces(measured_on, seed=seed + 1, size=56, **TEST_KNOBS)
    net = train_landmarks(learned, epochs=epochs, seed=seed)
    net.half().float()  # measured as it ships
    score = measure_landmarks(net, judged, truth_of(learned).mean(0))
    if photographs is not None:
        score[f"mirror_disagreement_{photographs.name}"] = mirror_disagreement(net, photographs).mean().item()
    command = f"fer-lab landmarks --faces {count} --epochs {epochs} --seed {seed}{words}"
    about = {"fingerprint": learned.fingerprint, "learned_from": learned.knobs, "measured_on": judged.knobs}
    about["score"] = {name: round(value, 3) for name, value in score.items()}
    return ship(net, path, dataset="synthetic", command=command, seed=seed, **about)


def ship(model: Method | MobileFaceNet, path: Path, **about: Any) -> dict[str, Any]:
    """Write weights in half precision with their card, also as Markdown beside them → the card."""
    save_model(model, path, half=True, **about)
    card = read_card(path)
    write_text(path.with_suffix(".md"), card_text(card))
    return card
