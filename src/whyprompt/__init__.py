"""whyprompt: what a change of prompt causes in a language model, and through which heads."""

from __future__ import annotations

__version__ = "0.1.0.dev0"
