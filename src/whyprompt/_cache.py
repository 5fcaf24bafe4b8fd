"""The folder of what can be made again, and ratios of speed measured once on a machine."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from whyprompt._files import whole_file
from whyprompt.errors import WhypromptError

if TYPE_CHECKING:
    from collections.abc import Callable


def cache_dir() -> Path:
    """Give the folder for converted models: ``$WHYPROMPT_CACHE``, or ``whyprompt`` in the user's cache."""
    if own := os.environ.get("WHYPROMPT_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "whyprompt"


def remembered(kind: str, key: str, form: str, make: Callable[[], str]) -> str:
    """Give a short text that is made once and kept, in the cache's folder `kind`.

    `key` is all that it depends on; a file that does not match `form`, a regular expression, is made anew.
    """
    kept = cache_dir() / kind / hashlib.sha256(key.encode()).hexdigest()
    try:
        text = kept.read_text(encoding="ascii")
    except (OSError, ValueError):
        text = ""
    if re.fullmatch(form, text):
        return text
    text = make()
    # A cache that is full or may not be written costs the time to make the text again, nothing else.
    with contextlib.suppress(OSError, WhypromptError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(kept) as file:
            file.write(text.encode("ascii"))
    return text


def remembered_ratio(what: str, measure: Callable[[], float]) -> float:
    """Measure a ratio of speeds once on a machine, to two decimals: a run that goes on decides alike.

    `what` names it and all that it depends on beside the processor and the version of torch.
    """
    import torch

    key = f"{torch.__version__}-{_processor()}-{what}"
    return float(remembered("speed", key, r"\d+\.\d\d", lambda: f"{measure():.2f}"))


@lru_cache
def _processor() -> str:
    """Name the processor: a home folder may be shared by machines that are not alike."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("vendor_id", "cpu family", "model", "model name", "flags", "CPU part", "Features")
    return "|".join(line for line in lines if line.split("\t")[0].strip() in wanted)
