"""What sweeps return: potential outcomes, item by item, and the effects in them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from whyprompt.mediation.estimands import PotentialOutcomes
from whyprompt.results import Estimate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = [
    "Head",
    "KnockoutSweep",
    "PairCut",
    "PairOutcomes",
    "Sweep",
    "column",
    "columns_of",
    "estimates",
    "head_words",
]

Head = tuple[int, int]
"""Layer and head."""


def head_words(head: Head) -> str:
    """Name a head."""
    return f"layer {head[0]} head {head[1]}"


def column(parts: tuple[Estimate, ...], name: str) -> Array:
    """One figure of every part as an array; NaN where it is not known."""
    values = (getattr(part, name) for part in parts)
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)


def estimates(labels: Sequence[str], n: int, by: str = "", **figures: Array) -> tuple[Estimate, ...]:
    """Turn arrays, one value a part, into the estimates of the parts; NaN is what is not known."""
    rows = np.stack([*figures.values()], 1).tolist()
    known = ({k: v for k, v in zip(figures, row, strict=True) if not np.isnan(v)} for row in rows)
    return tuple(
        Estimate(label=label, by=by, n_used=n, **({"estimate": None} | own))
        for label, own in zip(labels, known, strict=True)
    )


class Stored:
    """What is kept between runs: plain lists and numbers, and back."""

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for JSON.

        Returns
        -------
        dict

        Examples
        --------
        >>> p = PairOutcomes(item_id="a", cluster="a", y00=-2.0, y11=-1.0, y10=np.array([-1.5]), y01=None)
        >>> PairOutcomes.from_dict(p.to_dict()).y10.tolist()
        [-1.5]
        """
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`.

        Parameters
        ----------
        data : mapping

        Returns
        -------
        object of the class
        """
        return cls(**{name: _read(name, value) for name, value in data.items()})


def _read(name: str, value: Any) -> Any:  # noqa: ANN401  # any field of the classes below
    if name == "sets":
        return {key: _read("heads", heads) for key, heads in value.items()}
    if name == "heads":
        return tuple((int(layer), int(head)) for layer, head in value)
    if isinstance(value, list):
        return np.asarray(value, dtype=np.float64) if name.startswith("y") else tuple(value)
    return value


@dataclass(frozen=True, kw_only=True, eq=False)
class PairOutcomes(Stored):
    """Potential outcomes of one item: the unit in which a sweep is saved and resumed.

    Attributes
    ----------
    item_id, cluster : str
    y00, y11 : float
        Outcomes of the clean runs.
    y10, y01 : ndarray or None, shape (mediators,)
        ``Y(1, M(0))`` and ``Y(0, M(1))`` for each mediator in the sweep's order.
    floor : float or None
        By how much a patched run in which nothing is patched differs from the whole run: rounding.
    made_with : str
        Digest of the prompts, the answer, the mediators and the outcome, by which a resumed sweep
        knows its own; "" where it is unknown.
    """

    item_id: str
    cluster: str
    y00: float
    y11: float
    y10: Array | None
    y01: Array | None
    floor: float | None = None
    made_with: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class PairCut(Stored):
    """Outcomes of one item in a knockout sweep: the unit in which it is saved and resumed.

    Attributes
    ----------
    item_id, cluster : str
    y : float
        Outcome of the prompt as it is.
    y_cut : ndarray, shape (mediators,)
        Outcome with each head's edges cut.
    floor, made_with
        As in `PairOutcomes`.
    """

    item_id: str
    cluster: str
    y: float
    y_cut: Array
    floor: float | None = None
    made_with: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sweep(Stored, PotentialOutcomes):
    """Effects of single heads, or joint effects of sets of heads, item by item.

    Attributes
    ----------
    mediator, outcome : str
    model : str
        The architecture.
    item_ids, clusters : tuple of str
    n_layers, n_heads : int
        Size of the model's grid of heads.
    heads : tuple of (layer, head)
        The single heads swept, in the order of the arrays' last axis; empty where sets were swept.
    sets : mapping of str to tuple of (layer, head)
        The named sets swept, in the order of the arrays' last axis; empty where heads were.
    y00, y11 : ndarray, shape (items,)
    y10, y01 : ndarray or None, shape (items, mediators)
        `nie`, `nde`, `pure_nie` and `total_nde` have the same shape; `grid` lays one out
        as items x layers x heads.
    floor : float or None
        The numerical floor, in the outcome's unit: the most by which a patched run in which nothing is
        patched differed from the whole run. An effect below it cannot be told from rounding.
    notes : tuple of str
        The floor in words, and what else a reader has to know: which output z of a head is meant where
        more than one could be, and half precision.
    """

    y00: Array
    y11: Array
    y10: Array | None
    y01: Array | None
    mediator: str
    outcome: str
    model: str
    item_ids: tuple[str, ...]
    clusters: tuple[str, ...]
    n_layers: int
    n_heads: int
    heads: tuple[Head, ...] = ()
    sets: Mapping[str, tuple[Head, ...]] = field(default_factory=dict)
    floor: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the heads or sets."""
        return tuple(self.sets) or tuple(map(head_words, self.heads))

    def grid(self, quantity: str = "nie") -> Array:
        """One quantity as an array of items x layers x heads.

        Parameters
        ----------
        quantity : {"nie", "nde", "pure_nie", "total_nde"}

        Returns
        -------
        ndarray, shape (items, layers, heads)
            NaN where a head was not swept by itself.

        Raises
        ------
        MediationError
            If the quantity is unknown or was not run.
        """
        out = np.full((len(self.item_ids), self.n_layers, self.n_heads), np.nan)
        layers, heads = np.array(self.heads, dtype=np.intp).reshape(-1, 2).T
        out[:, layers, heads] = self.effect(quantity)[:, : len(self.heads)]
        return out

    def ranked(self, quantity: str = "nie") -> tuple[Head, ...]:
        """Heads from the largest mean effect down.

        Parameters
        ----------
        quantity : {"nie", "nde", "pure_nie", "total_nde"}

        Returns
        -------
        tuple of (layer, head)
        """
        return tuple(self.heads[i] for i in np.argsort(-self.effect(quantity).mean(0), kind="stable"))

    def to_frame(self) -> pd.DataFrame:
        """One row an item and head or set: item_id, cluster, layer and head or set and n_heads, te, effects.

        Returns
        -------
        pandas.DataFrame
        """
        own = {"te": np.repeat(self.te, len(self.labels))}
        return _long(self, own | {q: self.effect(q).ravel() for q in self.quantities})


@dataclass(frozen=True, kw_only=True, eq=False)
class KnockoutSweep(Stored):
    """Controlled effect of cutting the answer's view of a segment, head by head.

    Not a natural indirect effect: it compares one prompt with itself, edges cut.

    Attributes
    ----------
    segment : str
    arm : int
    outcome, model, item_ids, clusters, n_layers, n_heads, heads, floor, notes
        As in `Sweep`.
    y : ndarray, shape (items,)
        Outcome of the prompt as it is.
    y_cut : ndarray, shape (items, mediators)
        Outcome with one head's edges to the segment cut.
    """

    segment: str
    arm: int
    outcome: str
    model: str
    item_ids: tuple[str, ...]
    clusters: tuple[str, ...]
    n_layers: int
    n_heads: int
    heads: tuple[Head, ...]
    y: Array
    y_cut: Array
    floor: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def controlled_effect(self) -> Array:
        """``Y - Y(edges cut)``: what the head's view of the segment is worth, items x mediators."""
        return np.asarray(self.y[:, None] - self.y_cut)

    def to_frame(self) -> pd.DataFrame:
        """One row an item and head: item_id, cluster, layer, head, controlled_effect.

        Returns
        -------
        pandas.DataFrame
        """
        return _long(self, {"controlled_effect": self.controlled_effect.ravel()})


def columns_of(heads: tuple[Head, ...], sets: Mapping[str, tuple[Head, ...]]) -> dict[str, list[Any]]:
    """Columns that name heads, or sets."""
    if sets:
        return {"set": list(sets), "n_heads": [len(own) for own in sets.values()]}
    return {"layer": [layer for layer, _ in heads], "head": [head for _, head in heads]}


def _long(sweep: Sweep | KnockoutSweep, values: dict[str, Array]) -> pd.DataFrame:
    """One row an item and head or set."""
    import pandas as pd

    names = columns_of(sweep.heads, sweep.sets if isinstance(sweep, Sweep) else {})
    n, k = len(sweep.item_ids), len(next(iter(names.values())))
    return pd.DataFrame(
        {"item_id": np.repeat(sweep.item_ids, k), "cluster": np.repeat(sweep.clusters, k)}
        | {name: np.tile(own, n) for name, own in names.items()}
        | values
    )
