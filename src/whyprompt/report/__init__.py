"""report: see the module docstrings inside."""
