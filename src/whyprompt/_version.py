"""The version, where every part can read it without importing the package's face."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
