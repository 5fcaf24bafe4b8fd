"""Checks that an environment can run a study."""

from __future__ import annotations

import shutil
import sys
import tempfile
from typing import TYPE_CHECKING

from whyprompt._cache import cache_dir
from whyprompt._words import counted
from whyprompt.errors import StudyError, WhypromptError
from whyprompt.results import Check
from whyprompt.study import EndpointSettings
from whyprompt.trials.endpoints.judges import elsewhere
from whyprompt.trials.endpoints.run import probe_study
from whyprompt.trials.manifest import package_versions
from whyprompt.trials.models.locate import EMBEDDED, locate_model

if TYPE_CHECKING:
    from whyprompt.results import Verdict
    from whyprompt.study import Study

_NEEDED = ("torch", "transformers", "tokenizers", "numpy", "pandas")
_LEAST_FREE = 2 * 1024**3


def examine() -> list[Check]:
    """Look at the Python version, the packages, the cache, the disk, the device and the embedded model.

    A check fails where a study on the embedded default could not run, and is doubtful where something
    optional lacks.
    """
    said = f"{'.'.join(map(str, sys.version_info[:3]))} (3.11 or newer is needed)"
    python = _check("Python", "passes" if sys.version_info >= (3, 11) else "fails", said)
    return [python, *_packages(), _cache(), _device(), _model()]


def examine_endpoint(study: Study) -> list[Check]:
    """Probe the endpoint of a study, and those of its judges, on a few tokens.

    Raises `StudyError` if it has none.
    """
    if not isinstance(study.model, EndpointSettings) and not any(map(elsewhere, study.outcomes)):
        raise StudyError(
            f"study {study.name!r} runs on a local model, {study.model.name!r}",
            hint="whyprompt doctor, without --model, looks at this machine",
        )
    return list(probe_study(study))


def _check(name: str, verdict: Verdict, sentence: str) -> Check:
    return Check(name=name, verdict=verdict, sentence=sentence)


def _packages() -> list[Check]:
    versions = {n: v for n, v in package_versions().items() if n not in {"python", "whyprompt"}}
    return [
        _check(name, "passes", version)
        if version is not None
        else _check(name, "fails" if name in _NEEDED else "doubtful", "not installed")
        for name, version in versions.items()
    ]


def _cache() -> Check:
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return _check("cache folder", "fails", f"{folder}: {error.strerror}; set WHYPROMPT_CACHE")
    free = shutil.disk_usage(folder).free
    verdict: Verdict = "passes" if free > _LEAST_FREE else "doubtful"
    return _check("cache folder", verdict, f"{folder}, {free / 1024**3:.1f} GiB free")


def _device() -> Check:
    try:
        import torch
    except ImportError:
        return _check("device", "fails", "torch is not installed")
    if torch.cuda.is_available():
        return _check("device", "passes", f"CUDA: {torch.cuda.get_device_name(0)}")
    return _check("device", "passes", f"CPU, {counted(torch.get_num_threads(), 'thread')}")


def _model() -> Check:
    try:
        folder, sha256 = locate_model(EMBEDDED)
    except WhypromptError as error:
        return _check("embedded model", "fails", str(error).replace("\n", " "))
    return _check("embedded model", "passes", f"{folder} (sha256 {sha256[:12]})")
