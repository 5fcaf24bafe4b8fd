"""What a mediation keeps on disk: one line an item and sweep, so that a stopped sweep goes on where it was.

``mediation/FINGERPRINT/`` beside the store holds ``TREATED-CONTROL.jsonl`` (potential outcomes of each item),
``TREATED-CONTROL.json`` (the grid of heads), ``rest.json`` and ``attention.npz`` (the set found, attention).
The fingerprint covers the trials, the model and the settings: what belongs to another study is never read.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.analysis._pairs import chosen_items
from whyprompt.errors import StoreError
from whyprompt.mediation import AttentionCapture, HeadSearch, HeadSweep, MeanInterval, PairOutcomes
from whyprompt.study import MediationSettings
from whyprompt.trials.manifest import write_json
from whyprompt.trials.store import TrialStore

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from whyprompt.analysis.internal import AttentionPicture
    from whyprompt.study import Contrast, Study

__all__ = ["Rest", "Saved", "search_to_dict"]

# Raised when the same study and model would give other numbers.
_FORMAT = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Rest:
    """What a mediation has beside its sweeps; pictures as the arguments of their class."""

    search: HeadSearch | None
    note: str
    pictures: list[dict[str, Any]]
    capture: AttentionCapture


@dataclass(frozen=True, kw_only=True)
class Saved:
    """The saved parts of one study's mediation.

    Attributes
    ----------
    folder : Path
    items : tuple of str
        Items that belong to the sweep.
    item_tasks : mapping of str to str
    """

    folder: Path
    items: tuple[str, ...]
    item_tasks: dict[str, str]

    @classmethod
    def open(cls, study: Study, folder: str | Path, frame: pd.DataFrame, *, write: bool = True) -> Saved:
        """Find the folder that belongs to this study, model and settings; make it if `write`."""
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
        key = {
            "format": _FORMAT,
            "trials": trials,
            "model": model,
            "settings": settings.model_dump(mode="json"),
            "seed": study.seeds.analysis,
        }
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        path = Path(folder) / "mediation" / name
        if write:
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(f"the folder {path} cannot be made: {error.strerror}") from None
        return cls(
            folder=path,
            items=tuple(i.item_id for i in items),
            item_tasks={i.item_id: i.task_type for i in items},
        )

    def complete(self, contrasts: list[Contrast]) -> bool:
        """Say whether every sweep and the rest are there."""
        return (
            (self.folder / "rest.json").is_file()
            and self._mass.is_file()
            and all(self._grid(c).is_file() and len(self.outcomes(c)) == len(self.items) for c in contrasts)
        )

    def outcomes(self, contrast: Contrast) -> dict[str, PairOutcomes]:
        """Read the finished items of one sweep."""
        path = self._lines(contrast)
        found: dict[str, PairOutcomes] = {}
        if not path.is_file():
            return found
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                one = PairOutcomes.from_dict(json.loads(line))
            except json.JSONDecodeError:
                # The last line of a sweep that was killed while it wrote.
                continue
            if one.item_id in self.item_tasks:
                found[one.item_id] = one
        return found

    def keeper(self, contrast: Contrast) -> Callable[[PairOutcomes], None]:
        """Give the function that keeps each finished item."""
        path = self._lines(contrast)
        # A line cut short by a kill must not swallow the next one.
        if path.is_file() and not path.read_bytes().endswith(b"\n"):
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")

        def keep(one: PairOutcomes) -> None:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(one.to_dict()) + "\n")
                file.flush()
                os.fsync(file.fileno())

        return keep

    def finish(self, contrast: Contrast, sweep: HeadSweep) -> None:
        """Keep what a finished sweep has beside its items."""
        write_json(
            self._grid(contrast),
            {
                "mediator": sweep.mediator,
                "outcome": sweep.outcome,
                "model": sweep.model,
                "n_layers": sweep.n_layers,
                "n_heads": sweep.n_heads,
                "heads": [list(h) for h in sweep.heads],
                "floor": sweep.floor,
                "notes": list(sweep.notes),
            },
        )

    def sweep(self, contrast: Contrast) -> HeadSweep:
        """Read a finished sweep."""
        grid = json.loads(self._grid(contrast).read_text(encoding="utf-8"))
        done = self.outcomes(contrast)
        rows = [done[i] for i in self.items]

        def stack(name: str) -> np.ndarray[Any, np.dtype[np.float64]] | None:
            values = [getattr(r, name) for r in rows]
            return None if any(v is None for v in values) else np.stack(values)

        return HeadSweep(
            mediator=grid["mediator"],
            outcome=grid["outcome"],
            model=grid["model"],
            item_ids=tuple(r.item_id for r in rows),
            clusters=tuple(r.cluster for r in rows),
            n_layers=grid["n_layers"],
            n_heads=grid["n_heads"],
            heads=tuple((int(layer), int(head)) for layer, head in grid["heads"]),
            y00=np.array([r.y00 for r in rows]),
            y11=np.array([r.y11 for r in rows]),
            y10=stack("y10"),
            y01=stack("y01"),
            floor=grid.get("floor"),
            notes=tuple(grid.get("notes", ())),
        )

    def close(
        self,
        search: HeadSearch | None,
        note: str,
        pictures: list[AttentionPicture],
        capture: AttentionCapture,
    ) -> None:
        """Keep the set found, the attention of one item, and the attention mass of all."""
        np.savez_compressed(self._mass, mass=capture.mass, entropy=capture.entropy)
        # Last: where this file is, everything is.
        write_json(
            self.folder / "rest.json",
            {
                "search": None if search is None else search_to_dict(search),
                "note": note,
                "attention": [
                    {
                        **{f.name: getattr(p, f.name) for f in fields(p) if f.name != "weights"},
                        "weights": base64.b64encode(p.weights.tobytes()).decode(),
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

    def read_rest(self) -> Rest:
        """Read what :meth:`close` kept."""
        rest = json.loads((self.folder / "rest.json").read_text(encoding="utf-8"))
        pictures = []
        for picture in rest["attention"]:
            weights = np.frombuffer(base64.b64decode(picture["weights"]), dtype=np.uint8)
            pictures.append(
                {
                    **picture,
                    "tokens": tuple(picture["tokens"]),
                    "segments": tuple(picture["segments"]),
                    "heads": tuple((int(layer), int(head)) for layer, head in picture["heads"]),
                    "weights": weights.reshape(len(picture["heads"]), len(picture["tokens"])),
                }
            )
        found, names = rest["search"], rest["capture"]
        with np.load(self._mass) as arrays:
            capture = AttentionCapture(
                item_ids=tuple(names["item_ids"]),
                clusters=tuple(names["clusters"]),
                heads=tuple((int(layer), int(head)) for layer, head in names["heads"]),
                segments=tuple(names["segments"]),
                mass=arrays["mass"],
                entropy=arrays["entropy"],
            )
        return Rest(
            search=None if found is None else _search_from_dict(found),
            note=rest["note"],
            pictures=pictures,
            capture=capture,
        )

    @property
    def _mass(self) -> Path:
        return self.folder / "attention.npz"

    def _lines(self, contrast: Contrast) -> Path:
        return self.folder / f"{contrast.treated}-{contrast.control}.jsonl"

    def _grid(self, contrast: Contrast) -> Path:
        return self.folder / f"{contrast.treated}-{contrast.control}.json"


def search_to_dict(search: HeadSearch) -> dict[str, Any]:
    """Return a search as values that JSON can hold."""
    out: dict[str, Any] = {f.name: getattr(search, f.name) for f in fields(search)}
    return {
        **out,
        "heads": [list(h) for h in search.heads],
        "path": [list(h) for h in search.path],
        "search_share": search.search_share.tolist(),
        "held_out_share": search.held_out_share.tolist(),
        "carried": asdict(search.carried),
        "total": asdict(search.total),
        "search_items": list(search.search_items),
        "held_out_items": list(search.held_out_items),
    }


def _search_from_dict(data: dict[str, Any]) -> HeadSearch:
    heads, path = (tuple((int(a), int(b)) for a, b in data[k]) for k in ("heads", "path"))
    return HeadSearch(
        **{
            **data,
            "heads": heads,
            "path": path,
            "search_share": np.array(data["search_share"]),
            "held_out_share": np.array(data["held_out_share"]),
            "carried": MeanInterval(**data["carried"]),
            "total": MeanInterval(**data["total"]),
            "search_items": tuple(data["search_items"]),
            "held_out_items": tuple(data["held_out_items"]),
        }
    )
