"""The folder of what can be made again, and ratios of speed measured once on a machine."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["cache_dir", "remembered_ratio"]


def cache_dir() -> Path:
    """Give the folder for converted models: ``$WHYPROMPT_CACHE``, or ``whyprompt`` in the user's cache."""
    if own := os.environ.get("WHYPROMPT_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "whyprompt"


def remembered_ratio(what: str, measure: Callable[[], float]) -> float:
    """Measure a ratio of speeds once on a machine: a run that goes on decides alike.

    Parameters
    ----------
    what : str
        Names the ratio and all that it depends on beside the processor and the version of torch.
    measure : callable
        Gives the ratio.

    Returns
    -------
    float
        To two decimals.
    """
    import torch

    key = f"{torch.__version__}-{_processor()}-{what}"
    kept = cache_dir() / "speed" / hashlib.sha256(key.encode()).hexdigest()[:16]
    try:
        return float(kept.read_text(encoding="ascii"))
    except (OSError, ValueError):  # none yet, or not whole: measured now
        ratio = round(measure(), 2)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(f"{ratio:.2f}", encoding="ascii")
    except OSError:
        pass  # a cache that cannot be written: measured anew in each run
    return ratio


@lru_cache
def _processor() -> str:
    """Name the processor: a home folder may be shared by machines that are not alike."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("vendor_id", "cpu family", "model", "model name", "flags", "CPU part", "Features")
    return "|".join(line for line in lines if line.split("\t")[0].strip() in wanted)
