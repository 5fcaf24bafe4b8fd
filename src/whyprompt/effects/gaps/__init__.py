"""Missing values: what is missing, filled and pooled, and how far the answer rests on it."""
