"""whyprompt: what a change of prompt causes in a language model, and through which heads."""

from __future__ import annotations

from whyprompt._version import __version__

__all__ = ["__version__"]
