"""What sweeps return: potential outcomes, item by item, and the effects in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.errors import MediationError
from whyprompt.mediation import estimands

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["HeadSweep", "KnockoutSweep", "PairCut", "PairOutcomes", "SetSweep", "quantity_of"]

_QUANTITIES = ("nie", "nde", "pure_nie", "total_nde")


@dataclass(frozen=True, kw_only=True, eq=False)
class PairOutcomes:
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
        return _plain(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PairOutcomes:
        """Inverse of `to_dict`.

        Parameters
        ----------
        data : mapping

        Returns
        -------
        PairOutcomes
        """
        return cls(**_arrays(data, ("y10", "y01")))


@dataclass(frozen=True, kw_only=True, eq=False)
class PairCut:
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

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for JSON.

        Returns
        -------
        dict

        Examples
        --------
        >>> p = PairCut(item_id="a", cluster="a", y=-1.0, y_cut=np.array([-1.5]))
        >>> PairCut.from_dict(p.to_dict()).y_cut.tolist()
        [-1.5]
        """
        return _plain(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PairCut:
        """Inverse of `to_dict`.

        Parameters
        ----------
        data : mapping

        Returns
        -------
        PairCut
        """
        return cls(**_arrays(data, ("y_cut",)))


class _Effects:
    """The five quantities from the potential outcomes that a result holds."""

    y00: Array
    y11: Array
    y10: Array | None
    y01: Array | None

    @property
    def te(self) -> Array:
        """Total effect, ``Y(1, M(1)) - Y(0, M(0))``, one an item."""
        return estimands.total_effect(self.y11, self.y00)

    @property
    def nie(self) -> Array:
        """Natural indirect effect, ``Y(1, M(1)) - Y(1, M(0))``."""
        return estimands.natural_indirect_effect(self.y11, self._need("y10", "nie"))

    @property
    def nde(self) -> Array:
        """Natural direct effect, ``Y(1, M(0)) - Y(0, M(0))``."""
        return estimands.natural_direct_effect(self._need("y10", "nde"), self.y00)

    @property
    def pure_nie(self) -> Array:
        """Pure natural indirect effect, ``Y(0, M(1)) - Y(0, M(0))``."""
        return estimands.pure_natural_indirect_effect(self._need("y01", "pure_nie"), self.y00)

    @property
    def total_nde(self) -> Array:
        """Total natural direct effect, ``Y(1, M(1)) - Y(0, M(1))``."""
        return estimands.total_natural_direct_effect(self.y11, self._need("y01", "total_nde"))

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names of the effects that can be had beside ``te``."""
        have = [] if self.y10 is None else ["nie", "nde"]
        return (*have, *([] if self.y01 is None else ["pure_nie", "total_nde"]))

    def _need(self, name: str, quantity: str) -> Array:
        array: Array | None = getattr(self, name)
        if array is None:
            raise MediationError(
                f"{quantity} needs {name}, which this sweep did not run",
                hint=f"ask for it: directions=('{quantity}',)",
            )
        return array


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadSweep(_Effects):
    """Effects of single heads, item by item.

    Attributes
    ----------
    mediator, outcome : str
    model : str
        The architecture.
    item_ids, clusters : tuple of str
    n_layers, n_heads : int
        Size of the model's grid of heads.
    heads : tuple of (layer, head)
        The mediators, in the order of the arrays' last axis.
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

    mediator: str
    outcome: str
    model: str
    item_ids: tuple[str, ...]
    clusters: tuple[str, ...]
    n_layers: int
    n_heads: int
    heads: tuple[tuple[int, int], ...]
    y00: Array
    y11: Array
    y10: Array | None
    y01: Array | None
    floor: float | None = None
    notes: tuple[str, ...] = ()

    def grid(self, quantity: str = "nie") -> Array:
        """One quantity as an array of items x layers x heads.

        Parameters
        ----------
        quantity : {"nie", "nde", "pure_nie", "total_nde"}

        Returns
        -------
        ndarray, shape (items, layers, heads)
            NaN where a head was not asked for.

        Raises
        ------
        MediationError
            If the quantity is unknown or was not run.
        """
        out = np.full((len(self.item_ids), self.n_layers, self.n_heads), np.nan)
        layers, heads = np.array(self.heads).T
        out[:, layers, heads] = quantity_of(self, quantity)
        return out

    def ranked(self, quantity: str = "nie") -> tuple[tuple[int, int], ...]:
        """Heads from the largest mean effect down.

        Parameters
        ----------
        quantity : {"nie", "nde", "pure_nie", "total_nde"}

        Returns
        -------
        tuple of (layer, head)
        """
        return tuple(self.heads[i] for i in np.argsort(-quantity_of(self, quantity).mean(0), kind="stable"))

    def to_frame(self) -> pd.DataFrame:
        """One row an item and head: item_id, cluster, layer, head, te and the effects run.

        Returns
        -------
        pandas.DataFrame
        """
        import pandas as pd

        n, k = len(self.item_ids), len(self.heads)
        columns: dict[str, Any] = {
            "item_id": np.repeat(self.item_ids, k),
            "cluster": np.repeat(self.clusters, k),
            "layer": np.tile([layer for layer, _ in self.heads], n),
            "head": np.tile([head for _, head in self.heads], n),
            "te": np.repeat(self.te, k),
        }
        columns |= {q: quantity_of(self, q).ravel() for q in self.quantities}
        return pd.DataFrame(columns)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for JSON.

        Returns
        -------
        dict
        """
        return _plain(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HeadSweep:
        """Inverse of `to_dict`.

        Parameters
        ----------
        data : mapping

        Returns
        -------
        HeadSweep
        """
        out = _arrays(data, ("y00", "y11", "y10", "y01"))
        out["heads"] = tuple((int(layer), int(head)) for layer, head in out["heads"])
        out |= {name: tuple(out[name]) for name in ("item_ids", "clusters", "notes") if name in out}
        return cls(**out)


@dataclass(frozen=True, kw_only=True, eq=False)
class SetSweep(_Effects):
    """Joint effects of sets of heads, item by item.

    Attributes
    ----------
    mediator, outcome, model : str
    item_ids, clusters : tuple of str
    names : tuple of str
        Names of the sets, in the order of the arrays' last axis.
    sets : tuple of tuples of (layer, head)
    y00, y11 : ndarray, shape (items,)
    y10, y01 : ndarray or None, shape (items, sets)
    floor, notes
        As in `HeadSweep`.
    """

    mediator: str
    outcome: str
    model: str
    item_ids: tuple[str, ...]
    clusters: tuple[str, ...]
    names: tuple[str, ...]
    sets: tuple[tuple[tuple[int, int], ...], ...]
    y00: Array
    y11: Array
    y10: Array | None
    y01: Array | None
    floor: float | None = None
    notes: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row an item and set: item_id, cluster, set, n_heads, te and the effects run.

        Returns
        -------
        pandas.DataFrame
        """
        import pandas as pd

        n, k = len(self.item_ids), len(self.names)
        columns: dict[str, Any] = {
            "item_id": np.repeat(self.item_ids, k),
            "cluster": np.repeat(self.clusters, k),
            "set": np.tile(self.names, n),
            "n_heads": np.tile([len(s) for s in self.sets], n),
            "te": np.repeat(self.te, k),
        }
        columns |= {q: quantity_of(self, q).ravel() for q in self.quantities}
        return pd.DataFrame(columns)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for JSON.

        Returns
        -------
        dict
        """
        return _plain(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SetSweep:
        """Inverse of `to_dict`.

        Parameters
        ----------
        data : mapping

        Returns
        -------
        SetSweep
        """
        out = _arrays(data, ("y00", "y11", "y10", "y01"))
        out["sets"] = tuple(tuple((int(layer), int(head)) for layer, head in s) for s in out["sets"])
        out |= {name: tuple(out[name]) for name in ("item_ids", "clusters", "names", "notes") if name in out}
        return cls(**out)


@dataclass(frozen=True, kw_only=True, eq=False)
class KnockoutSweep:
    """Controlled effect of cutting the answer's view of a segment, head by head.

    Not a natural indirect effect: it compares one prompt with itself, edges cut.

    Attributes
    ----------
    segment : str
    arm : int
    outcome, model : str
    item_ids, clusters : tuple of str
    n_layers, n_heads : int
    heads : tuple of (layer, head)
    y : ndarray, shape (items,)
        Outcome of the prompt as it is.
    y_cut : ndarray, shape (items, mediators)
        Outcome with one head's edges to the segment cut.
    floor, notes
        As in `HeadSweep`.
    """

    segment: str
    arm: int
    outcome: str
    model: str
    item_ids: tuple[str, ...]
    clusters: tuple[str, ...]
    n_layers: int
    n_heads: int
    heads: tuple[tuple[int, int], ...]
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
        import pandas as pd

        n, k = len(self.item_ids), len(self.heads)
        return pd.DataFrame(
            {
                "item_id": np.repeat(self.item_ids, k),
                "cluster": np.repeat(self.clusters, k),
                "layer": np.tile([layer for layer, _ in self.heads], n),
                "head": np.tile([head for _, head in self.heads], n),
                "controlled_effect": self.controlled_effect.ravel(),
            }
        )


def quantity_of(result: HeadSweep | SetSweep, quantity: str) -> Array:
    """One effect of a sweep by its name, items x mediators.

    Raises
    ------
    MediationError
        If the quantity is unknown or was not run.
    """
    if quantity not in _QUANTITIES:
        raise MediationError(f"unknown quantity {quantity!r}", hint=f"one of {', '.join(_QUANTITIES)}")
    array: Array = getattr(result, quantity)
    return array


def _plain(result: Any) -> dict[str, Any]:  # noqa: ANN401  # any result dataclass
    values = {name: getattr(result, name) for name in result.__dataclass_fields__}
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in values.items()}


def _arrays(data: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {
        k: np.asarray(v, dtype=np.float64) if k in names and v is not None else v for k, v in data.items()
    }
