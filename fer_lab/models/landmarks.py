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

import safetensors
import torch

from fer_lab.data.augmentation import prepare
from fer_lab.data.faces import FaceSet
from fer_lab.models.poster import LANDMARK_WEIGHTS
from fer_lab.models.trunks import MobileFaceNet

# Index in the iBUG order, counted from 0, of the eyes' outer corners.
OUTER_CORNERS = (36, 45)
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
