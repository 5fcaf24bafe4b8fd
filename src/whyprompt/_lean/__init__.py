"""A model's own layers by faster routines: the same functions, to rounding."""
