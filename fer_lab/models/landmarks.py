"""The 68 landmarks that POSTER's second stream was learned for: their loss, their error, finding them in faces.

The loss is the wing loss (Feng et al., CVPR 2018, https://arxiv.org/abs/1711.06753), which takes small errors
as seriously as large ones. Errors are in percent of the distance between the outer corners of the eyes (points
37 and 46 of the iBUG order, counted from 1), as is usual since the 300-W challenge.

The network itself is `trunks.MobileFaceNet`, and fer_lab/experiments/landmarks.py trains it.
"""

import math

import torch
from torch import Tensor

from fer_lab.data.augmentation import prepare
from fer_lab.data.faces import FaceSet
from fer_lab.models.layers import evaluating
from fer_lab.models.trunks import MobileFaceNet

# Index in the iBUG order, counted from 0, of the eyes' outer corners.
OUTER_CORNERS = (36, 45)
# w, where the logarithm gives way to the absolute difference, and ε, how sharp the tip is: shares of the side.
WING_WIDTH, WING_CURVE = 0.05, 0.005
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


def wing_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """Mean of w ln(1 + |x|/ε) where |x| < w, else |x| − w + w ln(1 + w/ε) (Eq. 5 of the paper).

    Takes points [B,68,2] twice, as shares of the image's side, and raises ValueError if their shapes differ.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"expected points of one shape, got {list(predicted.shape)} and {list(truth.shape)}")
    x = (predicted.float() - truth.float()).abs()
    offset = WING_WIDTH - WING_WIDTH * math.log1p(WING_WIDTH / WING_CURVE)
    return torch.where(x < WING_WIDTH, WING_WIDTH * torch.log1p(x / WING_CURVE), x - offset).mean()


def landmark_error(predicted: Tensor, truth: Tensor) -> Tensor:
    """Mean distance of a face's 68 points from the truth, in % of the distance between its eyes' outer corners.

    Takes points [B,68,2] twice, in the same unit; returns [B]. Raises ValueError for other shapes.
    """
    if predicted.shape != truth.shape or tuple(truth.shape[1:]) != (68, 2):
        raise ValueError(f"expected points [B,68,2] twice, got {list(predicted.shape)} and {list(truth.shape)}")
    left, right = (truth[:, corner] for corner in OUTER_CORNERS)
    return 100 * (predicted - truth).norm(dim=2).mean(1) / (left - right).norm(dim=1)


def truth_of(faces: FaceSet) -> Tensor:
    """Known landmarks as shares 0…1 of the image's side, [N,68,2].

    Raises ValueError where the landmarks are not known, as in all photographs.
    """
    if faces.landmarks is None:
        raise ValueError(f"{faces.name} has no landmarks; only rendered faces do")
    return faces.landmarks / faces.image_size


@torch.no_grad()
def predict_landmarks(net: MobileFaceNet, faces: FaceSet, *, mirrored: bool = False) -> Tensor:
    """Landmarks of every face, in order, [N,68,2] as shares 0…1 of the image's side.

    The network runs in eval mode; afterwards every module has its own mode back. `mirrored`: run it on the
    mirror images, and mirror the points back onto the faces.
    """
    device = next(net.parameters()).device
    batches = []
    with evaluating(net):
        for rows in torch.arange(len(faces)).split(256):
            images = prepare(faces.take(rows), net.image_size)
            batches.append(net.points((images.flip(3) if mirrored else images).to(device)).float().cpu())
    points = torch.cat(batches)
    if mirrored:
        points = points[:, list(MIRRORED)]
        points[..., 0] = 1 - points[..., 0]
    return points


def mirror_disagreement(net: MobileFaceNet, faces: FaceSet) -> Tensor:
    """Distance of a face's points from those predicted on its mirror image, [N], in % as in `landmark_error`.

    It needs no truth, so it can be measured on photographs. It is not an error: a network that always predicts
    the same symmetric face agrees with itself. But a network that disagrees is wrong at least once.
    """
    return landmark_error(predict_landmarks(net, faces, mirrored=True), predict_landmarks(net, faces))
