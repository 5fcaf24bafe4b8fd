"""A model's own layers by faster routines: the same functions, to rounding."""

from whyprompt._lean.activations import gelu_new
from whyprompt._lean.layers import lean_layers
from whyprompt._lean.products import linear, products_note, room_for

__all__ = ["gelu_new", "lean_layers", "linear", "products_note", "room_for"]
