"""effects: see the module docstrings inside."""
