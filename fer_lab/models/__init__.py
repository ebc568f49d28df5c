"""The methods: `create_model(name, num_classes, size, **options)`, one paper a module."""

from fer_lab.models.method import Method, create_model, list_models, register_method
from fer_lab.models.recipes import Recipe

__all__ = ["Method", "Recipe", "create_model", "list_models", "register_method"]
