"""A continuous treatment: the dose and its response."""
