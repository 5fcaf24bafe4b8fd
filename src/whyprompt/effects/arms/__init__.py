"""Many arms at once, every pair with intervals that hold together."""
