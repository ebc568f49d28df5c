"""What a face is and where it comes from: rendered faces, data sets on disk, batches, photographs.

`load_faces` gives a labelled `FaceSet`; a `Loader` draws `FaceBatch`es from it, and `prepare` makes its images
ready for a model.
"""

from fer_lab.data.augmentation import Augmentation, prepare
from fer_lab.data.datasets import check_dataset, load_dataset
from fer_lab.data.expressions import CANONICAL, ORDERS, colors, from_canonical
from fer_lab.data.faces import REGIONS, FaceBatch, FaceSet
from fer_lab.data.images import DataError
from fer_lab.data.loader import Loader
from fer_lab.data.photographs import crop_face, find_faces, open_upload
from fer_lab.data.requests import FaceRequest, load_faces
from fer_lab.data.synthetic import SyntheticFaces
