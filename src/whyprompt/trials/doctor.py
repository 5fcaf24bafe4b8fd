"""Checks that an environment can run a study."""

from __future__ import annotations

import shutil
import sys
import tempfile
from typing import TYPE_CHECKING

from whyprompt._cache import cache_dir
from whyprompt._words import counted
from whyprompt.errors import WhypromptError
from whyprompt.results import Check
from whyprompt.trials.manifest import package_versions
from whyprompt.trials.models.locate import EMBEDDED, locate_model

__all__ = ["examine"]

if TYPE_CHECKING:
    from whyprompt.results import Verdict

_NEEDED = ("torch", "transformers", "tokenizers", "numpy", "pandas")
_LEAST_FREE = 2 * 1024**3


def examine() -> list[Check]:
    """Look at the Python version, the packages, the cache, the disk, the device and the embedded model.

    Returns
    -------
    list of Check
        One that fails where a study on the embedded default could not run, and is doubtful where something
        optional lacks.
    """
    return [_python(), *_packages(), _cache(), _device(), _model()]


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    fine = sys.version_info >= (3, 11)
    return Check(
        name="Python", verdict="passes" if fine else "fails", sentence=f"{version} (3.11 or newer is needed)"
    )


def _packages() -> list[Check]:
    checks = []
    for name, version in package_versions().items():
        if name in {"python", "whyprompt"}:
            continue
        if version is None:
            verdict: Verdict = "fails" if name in _NEEDED else "doubtful"
            checks.append(Check(name=name, verdict=verdict, sentence="not installed"))
        else:
            checks.append(Check(name=name, verdict="passes", sentence=version))
    return checks


def _cache() -> Check:
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Check(
            name="cache folder", verdict="fails", sentence=f"{folder}: {error.strerror}; set WHYPROMPT_CACHE"
        )
    free = shutil.disk_usage(folder).free
    verdict: Verdict = "passes" if free > _LEAST_FREE else "doubtful"
    return Check(name="cache folder", verdict=verdict, sentence=f"{folder}, {free / 1024**3:.1f} GiB free")


def _device() -> Check:
    try:
        import torch
    except ImportError:
        return Check(name="device", verdict="fails", sentence="torch is not installed")
    if torch.cuda.is_available():
        return Check(name="device", verdict="passes", sentence=f"CUDA: {torch.cuda.get_device_name(0)}")
    return Check(
        name="device", verdict="passes", sentence=f"CPU, {counted(torch.get_num_threads(), 'thread')}"
    )


def _model() -> Check:
    try:
        folder, sha256 = locate_model(EMBEDDED)
    except WhypromptError as error:
        return Check(name="embedded model", verdict="fails", sentence=str(error).replace("\n", " "))
    return Check(name="embedded model", verdict="passes", sentence=f"{folder} (sha256 {sha256[:12]})")
