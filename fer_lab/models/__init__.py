"""The methods: one paper, one file; `create_model(name, num_classes, size, **options)` builds each of them."""

from fer_lab.models.layers import output_shapes
from fer_lab.models.method import TITLES, Method, create_model, list_models, register_method
from fer_lab.models.recipes import Recipe
from fer_lab.models.weights import shipped_models
