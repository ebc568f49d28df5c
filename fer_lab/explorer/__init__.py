"""Trying models by hand: a rendered face, a photograph or two faces, as widgets and as still pictures."""

from fer_lab.explorer.controls import available_models
from fer_lab.explorer.panels import FaceState, draw_face, face_panel, pair_panel, photo_panel
from fer_lab.explorer.photo_overlay import predict_picture
from fer_lab.explorer.widgets import FaceExplorer, PairExplorer, PhotoExplorer, latency
