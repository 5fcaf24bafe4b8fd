"""What a mediation keeps on disk: one line an item and sweep, so that a stopped sweep goes on where it was.

``mediation/FINGERPRINT/`` beside the store holds ``TREATED-CONTROL.jsonl`` (potential outcomes of each item),
``TREATED-CONTROL.json`` (the grid of heads), ``relate4.path.jsonl`` and ``.json`` (the same of paths and sets
of so many heads, where they are asked for), ``flips3.jsonl`` and ``.json`` (of what the model writes),
``directions3.json`` (what heads' directions do on items they were not learned on), ``rest.json`` and
``attention.npz`` (the set found, attention).
The fingerprint covers the trials, the model and the settings: what belongs to another study is never read.
All of it can be computed again, so a damaged file is computed again, or named.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import math
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt._files import file_errors, lock_for, read_json, whole_file, write_json
from whyprompt.answers.pairs import chosen_items, study_contrasts
from whyprompt.errors import MediationError, StoreError
from whyprompt.mediation.capture import AttentionCapture, HeadCapture
from whyprompt.mediation.directions import judge_directions
from whyprompt.mediation.engine.sites import as_sites
from whyprompt.mediation.results import PairOutcomes, Sweep, heads_of
from whyprompt.mediation.search import HeadSearch
from whyprompt.results import Estimate
from whyprompt.study import MediationSettings
from whyprompt.trials.store import TrialStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd

    from whyprompt.study import Contrast, Study


# Raised when the same study and model would give other numbers.
_FORMAT = 6
_BEYOND = {"relate", "paths", "senders", "along", "flips", "directions", "text"}
_DELETE = "delete it and run again: whyprompt mediate STUDY computes what is missing, and only that"

Kept = tuple[list[Sweep], HeadSearch | str, tuple[HeadCapture, ...], AttentionCapture]
"""A sweep a contrast; the set found, or why there is none; the attention of one item; the mass of all."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """One study's mediation: what is asked, and what of the answer is on disk."""

    study: Study
    settings: MediationSettings
    folder: Path
    contrasts: list[Contrast]  # the main one first
    item_tasks: dict[str, str]  # of the items that belong to the sweep

    @classmethod
    def open(cls, study: Study, folder: str | Path, frame: pd.DataFrame) -> Saved:
        """Find the folder that belongs to this study, model and settings; nothing is made or written."""
        settings = study.mediation or MediationSettings()
        with TrialStore(Path(folder) / "trials.sqlite", write=False) as store:
            trials, model = store.latest(study.name)
        items = chosen_items(study, settings)
        missing = sorted({i.item_id for i in items} - set(frame["item_id"]))
        if missing:
            raise StoreError(
                f"the trial table has no item {missing[0]!r}, which the sweep needs",
                hint="run the study again: whyprompt run STUDY",
            )
        contrasts = study_contrasts(study, settings)
        key = {
            "format": _FORMAT,
            "trials": trials,
            "model": model,
            # The search and the attention are of this one.
            "contrast": [contrasts[0].treated, contrasts[0].control],
            # What is asked of heads beyond their sweep, and of texts, is in files of its own.
            "settings": settings.model_dump(mode="json", exclude=_BEYOND),
            "seed": study.seeds.analysis,
        }
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        return cls(
            study=study,
            settings=settings,
            folder=Path(folder) / "mediation" / name,
            contrasts=contrasts,
            item_tasks={i.item_id: i.task_type for i in items},
        )

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Make the folder, and let no other process write into it meanwhile."""
        lock = lock_for(self.folder)
        try:
            with file_errors(self.folder):
                self.folder.mkdir(exist_ok=True)
            yield
        finally:
            lock.release()

    def read(self) -> Kept | None:
        """Read all of it; None where it was not finished; a damaged file of it is a `StoreError`."""
        # Written last: where this file is, everything was.
        if not (self.folder / "rest.json").is_file():
            return None
        return [self.sweep(c) for c in self.contrasts], *self._read_rest()

    @property
    def relations(self) -> str:
        """The name of the sweep of paths and sets of heads, or nothing where none is asked for."""
        settings = self.settings
        if settings.relate is None:
            return ""
        further = f".{settings.senders}" if settings.senders != "chosen" else ""
        along = f".{hashlib.sha256(repr(settings.along).encode()).hexdigest()[:8]}" if settings.along else ""
        return f"relate{settings.relate}.{settings.paths}{further}{along}"

    @property
    def flips(self) -> str:
        """The name of the sweep over what the model writes, or nothing where none is asked for."""
        asked = self.settings.flips
        if asked is None:
            return ""
        named = "" if isinstance(asked, int) else hashlib.sha256(repr(asked).encode()).hexdigest()[:8]
        return f"flips{named or asked}"

    @property
    def directions(self) -> str:
        """The name of what is kept of heads' directions, or nothing where none are asked for."""
        many = self.settings.directions
        return "" if many is None else f"directions{many}"

    def further(self, name: str) -> Sweep | None:
        """Read a sweep by its name; None where it is not asked for, or was not finished."""
        return self.sweep(name) if name and self._grid(name).is_file() else None

    def tried(self) -> dict[str, Any] | None:
        """Read what was tried of heads' directions; None where it is not asked for, or was not finished."""
        path = self._grid(self.directions)
        if not self.directions or not path.is_file():
            return None
        with _reading(path):
            found: dict[str, Any] = read_json(path, hint=_DELETE)
            judge_directions(found, level=self.settings.level)
        return found

    def keep_tried(self, tried: dict[str, Any]) -> None:
        """Keep what was tried of heads' directions."""
        write_json(self._grid(self.directions), tried)

    def outcomes(self, contrast: Contrast | str) -> dict[str, PairOutcomes]:
        """Read the finished items of one sweep; a line that is not whole is an item not finished."""
        path = self._lines(contrast)
        if not path.is_file():
            return {}
        found = (_outcomes_of(line) for line in path.read_bytes().splitlines())
        return {one.item_id: one for one in found if one is not None and one.item_id in self.item_tasks}

    def keeper(self, contrast: Contrast | str) -> Callable[[PairOutcomes], None]:
        """Give the function that keeps each finished item."""
        path = self._lines(contrast)
        # A line cut short by a kill must not swallow the next one.
        if path.is_file() and not path.read_bytes().endswith(b"\n"):
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")

        def keep(one: PairOutcomes) -> None:
            with file_errors(path), path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(one.to_dict()) + "\n")
                file.flush()
                os.fsync(file.fileno())

        return keep

    def finish(self, contrast: Contrast | str, sweep: Sweep) -> None:
        """Keep what a finished sweep has beside its items."""
        write_json(
            self._grid(contrast),
            {
                "mediator": sweep.mediator,
                "tokens": sweep.tokens,
                "outcome": sweep.outcome,
                "model": sweep.model,
                "n_layers": sweep.n_layers,
                "n_heads": sweep.n_heads,
                "sites": [str(site) for site in sweep.sites],
                "paths": sweep.paths,
                "sets": {k: [str(site) for site in own] for k, own in sweep.sets.items() if not sweep.paths},
                "floor": sweep.floor,
                "notes": list(sweep.notes),
            },
        )

    def sweep(self, contrast: Contrast | str) -> Sweep:
        """Read a finished sweep; a damaged file of it is a `StoreError`."""
        done = self.outcomes(contrast)
        lost = [i for i in self.item_tasks if i not in done]
        if lost:
            raise StoreError(
                f"{self._lines(contrast)} is damaged: it has no whole line of item {lost[0]!r}", hint=_DELETE
            )
        rows = [done[i] for i in self.item_tasks]
        path = self._grid(contrast)
        with _reading(path):
            grid = read_json(path, hint=_DELETE)
            n_layers, n_heads = int(grid["n_layers"]), int(grid["n_heads"])
            sites = as_sites(map(_text, grid["sites"]))
            paths = {_text(k): tuple(map(_heads, own)) for k, own in grid["paths"].items()}
            sets = {k: as_sites(dict.fromkeys(h for path in own for h in path)) for k, own in paths.items()}
            sets |= {_text(k): as_sites(map(_text, own)) for k, own in grid["sets"].items()}
            every = [*sites, *(site for own in sets.values() for site in own)]
            if not all(s.layer < n_layers for s in every) or any(h >= n_heads for _, h in heads_of(every)):
                raise ValueError("sites outside the model")
            names = ("mediator", "tokens", "outcome", "model")
            mediator, tokens, outcome, model = (_text(grid[name]) for name in names)

        def stack(name: str) -> np.ndarray[Any, np.dtype[np.float64]] | None:
            values = [getattr(r, name) for r in rows]
            if any(v is None for v in values):
                return None
            if any(v.shape != (len(sets) or len(sites),) for v in values):
                raise StoreError(
                    f"{self._lines(contrast)} is damaged: a line has not one value a site", hint=_DELETE
                )
            return np.stack(values)

        return Sweep(
            mediator=mediator,
            tokens=tokens,
            outcome=outcome,
            model=model,
            item_ids=tuple(r.item_id for r in rows),
            clusters=tuple(r.cluster for r in rows),
            n_layers=n_layers,
            n_heads=n_heads,
            sites=sites,
            sets=sets,
            paths=paths,
            y00=np.array([r.y00 for r in rows]),
            y11=np.array([r.y11 for r in rows]),
            y10=stack("y10"),
            y01=stack("y01"),
            floor=grid.get("floor"),
            notes=tuple(grid.get("notes", ())),
        )

    def close(
        self, search: HeadSearch | str, pictures: tuple[HeadCapture, ...], capture: AttentionCapture
    ) -> None:
        """Keep what a mediation has beside its sweeps."""
        with whole_file(self._mass) as file:
            np.savez_compressed(file, mass=capture.mass, entropy=capture.entropy)
        # Last: where this file is, everything is.
        write_json(
            self.folder / "rest.json",
            {
                "search": None if isinstance(search, str) else search.to_dict(),
                "note": search if isinstance(search, str) else "",
                "attention": [
                    {
                        **{
                            name: getattr(p, name)
                            for name in ("item_id", "arm", "tokens", "segments", "heads")
                        },
                        # The mean over the answer positions, a byte each: 255 for 1.
                        "weights": base64.b64encode(
                            np.round(p.mean_weights * 255).astype(np.uint8).tobytes()
                        ).decode(),
                    }
                    for p in pictures
                ],
                "capture": {
                    "item_ids": list(capture.item_ids),
                    "clusters": list(capture.clusters),
                    "heads": [list(h) for h in capture.heads],
                    "segments": list(capture.segments),
                },
            },
        )

    def _read_rest(self) -> tuple[HeadSearch | str, tuple[HeadCapture, ...], AttentionCapture]:
        path = self.folder / "rest.json"
        with _reading(path):
            rest = read_json(path, hint=_DELETE)
            pictures = tuple(_picture(one) for one in rest["attention"])
            found, names = rest["search"], rest["capture"]
            note = _text(rest["note"])
            search = note if found is None else _search(found)
            item_ids, clusters, segments = (
                tuple(_text(x) for x in names[k]) for k in ("item_ids", "clusters", "segments")
            )
            heads = _heads(names["heads"])
        with _reading(self._mass), self._mass.open("rb") as file, np.load(file) as arrays:
            mass, entropy = arrays["mass"], arrays["entropy"]
            shape = (len(item_ids), 2, len(heads))
            if mass.shape != (*shape, len(segments)) or entropy.shape != shape:
                raise ValueError("arrays of another shape")
        capture = AttentionCapture(
            item_ids=item_ids, clusters=clusters, heads=heads, segments=segments, mass=mass, entropy=entropy
        )
        return search, pictures, capture

    @property
    def _mass(self) -> Path:
        return self.folder / "attention.npz"

    def _lines(self, contrast: Contrast | str) -> Path:
        return self.folder / f"{_named(contrast)}.jsonl"

    def _grid(self, contrast: Contrast | str) -> Path:
        return self.folder / f"{_named(contrast)}.json"


def _named(contrast: Contrast | str) -> str:
    return contrast if isinstance(contrast, str) else f"{contrast.treated}-{contrast.control}"


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Name a file whose content is not what was written."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        # Only the system names a file; a damaged archive can raise anything.
        if isinstance(error, OSError) and error.filename is not None:
            raise
        reason = " ".join(str(error).split())
        raise StoreError(
            f"{path} is damaged ({type(error).__name__}{f': {reason}' if reason else ''})", hint=_DELETE
        ) from None


def _outcomes_of(line: bytes) -> PairOutcomes | None:
    """Read one line of a sweep; None where it was cut by a kill, or damaged."""
    try:
        data = json.loads(line)
        one = replace(PairOutcomes.from_dict(data), y00=float(data["y00"]), y11=float(data["y11"]))
        texts = (one.item_id, one.cluster, one.made_with)
        arrays = [y for y in (one.y10, one.y01) if y is not None]
        whole = all(isinstance(t, str) for t in texts) and all(y.ndim == 1 for y in arrays)
    except (MediationError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return None
    return one if whole else None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _heads(value: list[list[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((int(layer), int(head)) for layer, head in value)


def _picture(saved: dict[str, Any]) -> HeadCapture:
    weights = np.frombuffer(base64.b64decode(saved["weights"]), dtype=np.uint8)
    return HeadCapture(
        **{
            **saved,
            "tokens": tuple(saved["tokens"]),
            "segments": tuple(saved["segments"]),
            "heads": _heads(saved["heads"]),
            "weights": weights.reshape(len(saved["heads"]), 1, len(saved["tokens"])) / 255,
        }
    )


def _estimate(saved: dict[str, Any]) -> Estimate:
    """Read an estimate; JSON has no infinity: an end that the items do not bound was written as null."""
    ends: dict[str, Any] = {"ci_low": -math.inf, "ci_high": math.inf}
    values: dict[str, Any] = {k: ends.get(k) if v is None else v for k, v in saved.items()}
    return Estimate(**values)


def _search(saved: dict[str, Any]) -> HeadSearch:
    overall = {f.name: saved[f.name] for f in fields(Estimate) if f.name in saved}
    rest = {k: v for k, v in saved.items() if k not in overall}
    return HeadSearch(
        **rest
        | {
            "overall": _estimate({"label": "total effect", **overall}),
            "parts": tuple(map(_estimate, saved["parts"])),
            "sites": tuple(map(str, as_sites(map(_text, saved["sites"])))),
            "path": tuple(map(str, as_sites(map(_text, saved["path"])))),
            "searched": {way: np.array(shares) for way, shares in saved["searched"].items()},
            "held_out": {way: np.array(shares) for way, shares in saved["held_out"].items()},
        }
        | {k: tuple(saved[k]) for k in ("assumptions", "warnings", "search_items", "held_out_items")}
    )
