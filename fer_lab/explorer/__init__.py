"""Trying models by hand: a rendered face, a photograph or two faces, as widgets and as still pictures."""

from typing import TYPE_CHECKING

from fer_lab._lazy import when_asked

if TYPE_CHECKING:
    from fer_lab.explorer.controls import available_models
    from fer_lab.explorer.panels import FaceState, draw_face, face_panel, pair_panel, photo_panel
    from fer_lab.explorer.photo_overlay import predict_picture
    from fer_lab.explorer.widgets import FaceExplorer, PairExplorer, PhotoExplorer

__getattr__, __dir__ = when_asked(__name__, __file__)
