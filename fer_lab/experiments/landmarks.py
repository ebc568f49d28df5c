"""TODO."""

import json
from pathlib import Path

import pandas as pd
import safetensors.torch
import torch

import fer_lab
from fer_lab._files import atomic_path
from fer_lab._progress import progress as progress_bar
from fer_lab.data.augmentation import Augmentation
from fer_lab.data.faces import FaceSet
from fer_lab.data.loader import Loader
from fer_lab.data.synthetic import SyntheticFaces
from fer_lab.models.landmarks import (
    card_text,
    landmark_error,
    mirror_disagreement,
    predict_landmarks,
    truth_of,
    wing_loss,
)
from fer_lab.models.poster import LANDMARK_WEIGHTS
from fer_lab.models.trunks import MobileFaceNet, mobilefacenet

# Faces to learn from: people, light and camera as different as the renderer can make them.
TRAINING_KNOBS = {
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
# Faces to be judged by: other people, tilted by up to 20°, turned, half of them partly covered.
TEST_KNOBS = {
    "rotation": 20.0,
    "head_turn": 20.0,
    "occlusion": 0.5,
    "imbalance": 0.0,
    "faces_per_subject": 2.0,
}


def train_landmarks(
    faces: FaceSet,
    *,
    epochs: int = 12,
    batch_size: int = 64,
    lr: float = 3e-3,
    seed: int = 0,
    size: str = "tiny",
    device: str = "cpu",
) -> tuple[MobileFaceNet, pd.DataFrame]:
    """Train a landmark network from random weights.

    Args:
        faces: rendered ones; all of them are learned from.
        lr: highest learning rate of AdamW, up over a fifth of the run and down by a cosine.
        seed: of the weights and the order of the faces.

    Returns:
        The network in eval mode, on the CPU, and a row an epoch: epoch, loss, error (in %, while training).

    Raises:
        ValueError: faces without landmarks, or too few for a batch.
    """
    truth = truth_of(faces)
    torch.manual_seed(seed)
    net = mobilefacenet(size)
    with torch.no_grad():  # the first guess is the mean face
        net.head.norm.bias.copy_(truth.mean(0).flatten())
        net.head.norm.weight.copy_(truth.std(0).flatten())
    net.to(device, memory_format=torch.channels_last).train()
    loader = Loader(
        faces,
        batch_size=batch_size,
        size=net.image_size,
        augmentation=Augmentation(brightness=0.2, contrast=0.3, saturation=0.5, hue=0.1),
        seed=seed,
        device=device,
        drop_last=True,
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr, weight_decay=0.01)
    steps = epochs * len(loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=steps + 1, pct_start=0.2, cycle_momentum=False
    )
    history = []
    with progress_bar(description="landmarks", total=steps) as bar:
        for epoch in range(epochs):
            loader.set_epoch(epoch)
            losses, errors = [], []
            for batch in loader:
                known = truth[batch.indices.cpu()].to(device)
                found = net.points(batch.images)
                loss = wing_loss(found, known)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                losses.append(loss.detach())
                errors.append(landmark_error(found.detach(), known).mean())
                bar.update()
            row = {"loss": torch.stack(losses).mean().item(), "error": torch.stack(errors).mean().item()}
            history.append({"epoch": epoch + 1, **row})
    return net.to("cpu", memory_format=torch.contiguous_format).eval(), pd.DataFrame(history)


def measure_landmarks(net: MobileFaceNet, faces: FaceSet, mean_shape: torch.Tensor) -> dict[str, float]:
    """What the network gets wrong on rendered faces, in % of the distance of the eyes' outer corners.

    Args:
        mean_shape: [68,2], the guess of somebody who has not looked: the mean over the faces learned from.

    Returns:
        error: mean over the faces; error_of_the_worst_5_percent: it is at least this; mean_shape_error: of
        that guess, the chance level; mirror_disagreement: as in the function of that name.
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
    path: str | Path = LANDMARK_WEIGHTS,
    *,
    count: int = 12_000,
    epochs: int = 10,
    seed: int = 0,
    measured_on: int = 1000,
    photographs: FaceSet | None = None,
) -> dict:
    """Train the tiny landmark network, measure it on other people, and write it with its card.

    Args:
        path: .safetensors, in half precision; the card goes into its header and, as text, beside it (.md).
        count: faces to learn from.
        seed: of the weights; the faces have seeds of their own.
        measured_on: how many other faces, of other people, to measure on.
        photographs: faces without known landmarks to measure `mirror_disagreement` on as well.

    Returns:
        The card: data, command, seed, score, …

    Raises:
        ValueError: too few faces.
        DiskFullError: no space.
    """
    learned = SyntheticFaces(count, seed=seed, size=56, **TRAINING_KNOBS)
    judged = SyntheticFaces(measured_on, seed=seed + 1, size=56, **TEST_KNOBS)
    net, _ = train_landmarks(learned, epochs=epochs, seed=seed)
    state = {name: t.half() if t.is_floating_point() else t for name, t in net.state_dict().items()}
    net.load_state_dict(state)  # measured as it ships
    score = measure_landmarks(net, judged, truth_of(learned).mean(0))
    if photographs is not None:
        score[f"mirror_disagreement_{photographs.name}"] = mirror_disagreement(net, photographs).mean().item()
    card = {
        "network": "mobilefacenet, tiny",
        "command": f"fer-lab landmarks --faces {count} --epochs {epochs} --seed {seed}",
        "seed": seed,
        "fingerprint": learned.fingerprint,
        "learned_from": learned.knobs,
        "measured_on": judged.knobs,
        "score": {name: round(value, 3) for name, value in score.items()},
        "fer_lab": fer_lab.__version__,
    }
    card = json.loads(json.dumps(card))  # as it will be read: tuples become lists
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path, needed=sum(tensor.nbytes for tensor in state.values())) as temporary:
        safetensors.torch.save_file(state, temporary, metadata={"fer_lab": json.dumps(card)})
    with atomic_path(path.with_suffix(".md")) as temporary:
        temporary.write_text(card_text(card), encoding="utf-8")
    return card
