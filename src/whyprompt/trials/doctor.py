"""Checks that an environment can run a study."""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import dataclass
from typing import Literal

from whyprompt._cache import cache_dir
from whyprompt._words import counted
from whyprompt.errors import WhypromptError
from whyprompt.trials.manifest import package_versions
from whyprompt.trials.models.locate import EMBEDDED, locate_model

__all__ = ["Check", "examine"]

_NEEDED = ("torch", "transformers", "tokenizers", "numpy", "pandas")
_LEAST_FREE = 2 * 1024**3


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing looked at, and what was found."""

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str


def examine() -> list[Check]:
    """Look at the Python version, the packages, the cache, the disk, the device and the embedded model.

    Returns
    -------
    list of Check
        ``fail`` where a study on the embedded default could not run, ``warn`` where something optional lacks.
    """
    return [_python(), *_packages(), _cache(), _device(), _model()]


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    fine = sys.version_info >= (3, 11)
    return Check(
        name="Python", status="ok" if fine else "fail", detail=f"{version} (3.11 or newer is needed)"
    )


def _packages() -> list[Check]:
    checks = []
    for name, version in package_versions().items():
        if name in {"python", "whyprompt"}:
            continue
        if version is None:
            status: Literal["warn", "fail"] = "fail" if name in _NEEDED else "warn"
            checks.append(Check(name=name, status=status, detail="not installed"))
        else:
            checks.append(Check(name=name, status="ok", detail=version))
    return checks


def _cache() -> Check:
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Check(
            name="cache folder", status="fail", detail=f"{folder}: {error.strerror}; set WHYPROMPT_CACHE"
        )
    free = shutil.disk_usage(folder).free
    status: Literal["ok", "warn"] = "ok" if free > _LEAST_FREE else "warn"
    return Check(name="cache folder", status=status, detail=f"{folder}, {free / 1024**3:.1f} GiB free")


def _device() -> Check:
    try:
        import torch
    except ImportError:
        return Check(name="device", status="fail", detail="torch is not installed")
    if torch.cuda.is_available():
        return Check(name="device", status="ok", detail=f"CUDA: {torch.cuda.get_device_name(0)}")
    return Check(name="device", status="ok", detail=f"CPU, {counted(torch.get_num_threads(), 'thread')}")


def _model() -> Check:
    try:
        files = locate_model(EMBEDDED)
    except WhypromptError as error:
        return Check(name="embedded model", status="fail", detail=str(error).replace("\n", " "))
    return Check(name="embedded model", status="ok", detail=f"{files.folder} (sha256 {files.sha256[:12]})")
