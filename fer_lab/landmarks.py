"""The 68 landmarks: a network that finds them, trained on rendered faces whose landmarks are known.

POSTER's second stream is such a network. The authors' weights are on no package index, so the tiny one is
trained here, by the command that its card names, and ships with the package.

The loss is the wing loss (Feng et al., CVPR 2018, arXiv 1711.06753), which takes small errors as seriously
as large ones. Errors are in percent of the distance between the outer corners of the eyes (points 37 and 46
of the iBUG order, counted from 1), as is usual since the 300-W challenge.
"""

import json
import math
from pathlib import Path

import pandas as pd
import safetensors
import safetensors.torch
import torch

import fer_lab
from fer_lab.data.batches import Augmentation, Loader, prepare
from fer_lab.data.faces import FaceSet
from fer_lab.data.progress import progress as progress_bar
from fer_lab.data.synthetic import SyntheticFaces
from fer_lab.models.poster import LANDMARK_WEIGHTS
from fer_lab.models.trunks import MobileFaceNet, mobilefacenet
from fer_lab.runs import atomic_path

# Index in the iBUG order, counted from 0, of the eyes' outer corners.
OUTER_CORNERS = (36, 45)
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
WING_WIDTH, WING_CURVE = 0.05, 0.005  # w and ε, in shares of the image's side
# Where each of the 68 points goes in a mirror image.
MIRRORED = (
    *range(16, -1, -1),  # jaw
    *range(26, 16, -1),  # brows
    *range(27, 31),  # bridge of the nose
    *range(35, 30, -1),  # nostrils
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),  # eyes
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),  # outer lips
    *(64, 63, 62, 61, 60, 67, 66, 65),  # inner lips
)


def wing_loss(
    predicted: torch.Tensor,
    truth: torch.Tensor,
    width: float = WING_WIDTH,
    curve: float = WING_CURVE,
) -> torch.Tensor:
    """Mean of w ln(1 + |x|/ε) where |x| < w, else |x| − w + w ln(1 + w/ε) (Eq. 5 of the paper).

    Args:
        predicted, truth: [B,68,2], in the same unit as `width` and `curve`.
        width: w, where the logarithm gives way to the absolute difference.
        curve: ε, how sharp the tip is.

    Raises:
        ValueError: shapes that differ.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"expected points of one shape, got {list(predicted.shape)} and {list(truth.shape)}")
    x = (predicted.float() - truth.float()).abs()
    offset = width - width * math.log1p(width / curve)
    return torch.where(x < width, width * torch.log1p(x / curve), x - offset).mean()


def landmark_error(predicted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean distance of a face's 68 points from the truth, in % of the distance of its eyes' outer corners.

    Args:
        predicted, truth: [B,68,2], in the same unit.

    Returns:
        [B], in %.

    Raises:
        ValueError: other shapes.
    """
    if predicted.shape != truth.shape or truth.ndim != 3 or tuple(truth.shape[1:]) != (68, 2):
        raise ValueError(f"expected points [B,68,2] twice, got {list(predicted.shape)} and {list(truth.shape)}")
    left, right = (truth[:, corner] for corner in OUTER_CORNERS)
    apart = (left - right).norm(dim=1)
    return 100 * (predicted - truth).norm(dim=2).mean(1) / apart


def truth_of(faces: FaceSet) -> torch.Tensor:
    """Known landmarks as shares 0…1 of the image's side, [N,68,2].

    Raises:
        ValueError: faces whose landmarks are not known, as of all photographs.
    """
    if faces.landmarks is None:
        raise ValueError(f"{faces.name} has no landmarks; only rendered faces do")
    return faces.landmarks / faces.image_size


@torch.no_grad()
def predict_landmarks(
    net: MobileFaceNet, faces: FaceSet, *, mirrored: bool = False, batch_size: int = 256
) -> torch.Tensor:
    """Landmarks of every face, in order, [N,68,2] as shares 0…1 of the image's side.

    Args:
        net: is in eval mode meanwhile; every module gets its own mode back.
        mirrored: look at the mirror images, and bring the points back to the faces as they are.
    """
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    device = next(net.parameters()).device
    found = []
    try:
        for rows in torch.arange(len(faces)).split(batch_size):
            images = prepare(faces.take(rows), net.image_size)
            found.append(net.points((images.flip(3) if mirrored else images).to(device)).float().cpu())
    finally:
        for module, training in modes:
            module.training = training
    points = torch.cat(found)
    if mirrored:
        points = points[:, list(MIRRORED)]
        points[..., 0] = 1 - points[..., 0]
    return points


def mirror_disagreement(net: MobileFaceNet, faces: FaceSet) -> torch.Tensor:
    """How far a face's points lie from those found in its mirror image, [N], in % as in `landmark_error`.

    It needs no truth, so it can be had for photographs. It is no error: a network that always gives the same
    symmetric face agrees with itself. But one that disagrees is wrong at least once.
    """
    return landmark_error(predict_landmarks(net, faces, mirrored=True), predict_landmarks(net, faces))


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


def read_landmark_card(path: str | Path = LANDMARK_WEIGHTS) -> dict:
    """The card of weights that `ship_landmarks` wrote.

    Raises:
        ValueError: no such file, or no card in it.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {})["fer_lab"])
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"{path} has no card of landmark weights ({error}); `fer-lab landmarks` writes one"
        ) from error


def card_text(card: dict) -> str:
    """A card as Markdown."""
    scores = "\n".join(f"| {name.replace('_', ' ')} | {value:.2f} % |" for name, value in card["score"].items())
    learned, measured = (
        ", ".join(f"{name} {value}" for name, value in card[key].items())
        for key in ("learned_from", "measured_on")
    )
    return (
        f"# 68 landmarks, {card['network']}\n\n"
        "Half-precision weights of POSTER's landmark stream at tiny size, made by\n\n"
        f"```\n{card['command']}\n```\n\n"
        f"Learned from rendered faces: {learned}.\n\n"
        f"Measured on other rendered people: {measured}.\n\n"
        "In % of the distance between the outer corners of the eyes:\n\n"
        f"| | |\n| --- | --- |\n{scores}\n\n"
        "**Limits.** It has never seen a photograph. The mirror disagreement says how far it contradicts "
        "itself; on photographs, whose landmarks nobody has marked here, nothing else is known of it.\n"
    )
