"""What sweeps return: potential outcomes, item by item, and the effects in them.

``Y(a, M(b))`` is the outcome of prompt ``a`` when the mediator has the value it takes under prompt ``b``.
Four arrays hold all that a sweep over mediators needs:

======  ==============  ==========================================
name    is              shape in a sweep
======  ==============  ==========================================
y00     Y(0, M(0))      items
y11     Y(1, M(1))      items
y10     Y(1, M(0))      items x mediators (any trailing shape)
y01     Y(0, M(1))      items x mediators (any trailing shape)
======  ==============  ==========================================

References
----------
Pearl, J. (2001). Direct and indirect effects. UAI, eqs. 6 and 8.
Robins, J. M. and Greenland, S. (1992). Identifiability and exchangeability for
direct and indirect effects. Epidemiology 3(2), 143-155 (pure and total effects).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from whyprompt._display import Cells, Shown
from whyprompt._words import counted, format_number
from whyprompt.errors import MediationError
from whyprompt.mediation.engine.sites import as_sites
from whyprompt.mediation.exchange import WORDS, fields_of, laid_out
from whyprompt.mediation.scales import scale_words
from whyprompt.results import Estimate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from whyprompt.mediation.engine.sites import Kind, Site

    Array = NDArray[np.float64]

Head = tuple[int, int]
"""Layer and head."""

_NATURAL = ("nie", "nde", "pure_nie", "total_nde")
_HINTS = {
    "te": "a knockout is of one prompt; head_sweep runs both",
    "controlled_effect": "knockout_sweep gives it",
}
_CLEAN, _PATCHED = ("y00", "y11", "y"), ("y10", "y01", "y_cut")


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

        Examples
        --------
        >>> p = PairOutcomes(item_id="a", cluster="a", y00=-2.0, y11=-1.0, y10=np.array([-1.5]))
        >>> PairOutcomes.from_dict(p.to_dict()).y10.tolist()
        [-1.5]
        """
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return {k: _written(k, v) for k, v in values.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`; what has other fields is a `MediationError`."""
        values = {name: _read(name, value) for name, value in data.items()}
        if other := values.keys() - {f.name for f in fields(cls)}:  # type: ignore[arg-type]
            raise MediationError(
                f"a {cls.__name__} has no field {min(other)!r}: another version wrote this, or another tool",
                hint="run it again",
            )
        return cls(**values)


def _written(name: str, value: Any) -> Any:  # noqa: ANN401  # any field of the classes below
    if name == "sets":
        return {key: _written("sites", own) for key, own in value.items()}
    if name == "sites":
        return [str(site) for site in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


def _heads(path: Iterable[Sequence[int]]) -> tuple[Head, ...]:
    return tuple((int(layer), int(head)) for layer, head in path)


def _read(name: str, value: Any) -> Any:  # noqa: ANN401  # any field of the classes below
    if name in {"sites", "sets"}:
        return value  # their names; the sweep reads them
    if name == "paths":
        return {key: tuple(_heads(path) for path in own) for key, own in value.items()}
    if isinstance(value, list):
        return np.asarray(value, dtype=np.float64) if name.startswith("y") else tuple(value)
    return value


@dataclass(frozen=True, kw_only=True, eq=False)
class PairOutcomes(Stored, Shown):
    """Outcomes of one item: the unit in which a sweep is saved and resumed; what was not run is None.

    Attributes
    ----------
    item_id, cluster : str
    y00, y11 : float or None
        Outcomes of the clean runs.
    y10, y01 : ndarray or None, shape (mediators,)
        ``Y(1, M(0))`` and ``Y(0, M(1))`` for each mediator in the sweep's order.
    y : float or None
        In a knockout, outcome of the one prompt as it is.
    y_cut : ndarray or None, shape (mediators,)
        Its outcome with each head's edges cut.
    floor : float or None
        By how much a patched run in which nothing is patched differs from the whole run: rounding.
    made_with : str
        Digest of the prompts, the answer, the mediators and the outcome, by which a resumed sweep
        knows its own; "" where it is unknown.
    """

    item_id: str
    cluster: str
    y00: float | None = None
    y11: float | None = None
    y10: Array | None = None
    y01: Array | None = None
    y: float | None = None
    y_cut: Array | None = None
    floor: float | None = None
    made_with: str = ""

    @property
    def sentence(self) -> str:
        """Which outcomes of the item there are."""
        found = (name for name in (*_CLEAN, *_PATCHED) if getattr(self, name) is not None)
        return f"Outcomes of item {self.item_id!r}: {', '.join(found) or 'none'}."


def floor_of(rows: Sequence[PairOutcomes]) -> float | None:
    """Largest floor of the items; None where one does not know its own."""
    floors = [r.floor for r in rows if r.floor is not None]
    return max(floors) if len(floors) == len(rows) else None


def stacked(rows: Sequence[PairOutcomes]) -> dict[str, Any]:
    """Arrays of a sweep from its items' outcomes."""
    out: dict[str, Any] = {
        "floor": floor_of(rows),
        "item_ids": tuple(r.item_id for r in rows),
        "clusters": tuple(r.cluster for r in rows),
    }
    for name in (*_CLEAN, *_PATCHED):
        values = [getattr(r, name) for r in rows]
        have = [v is not None for v in values]
        if any(have) and not all(have):
            missing = rows[have.index(False)].item_id
            raise MediationError(
                f"item {missing!r}: which prompt is the longer differs between the items",
                hint="attention rows move from the shorter to the longer prompt; split the items",
            )
        out[name] = np.stack(values) if all(have) else None
    return out


@dataclass(frozen=True, kw_only=True, eq=False)
class Sweep(Stored, Shown):
    """Effects of single sites (heads and others), or joint effects of sets of them, item by item.

    They are natural ones, `nie`, `nde`, `pure_nie` and `total_nde`; or, of a knockout, the
    `controlled_effect`, which compares one prompt with itself, edges cut, and is no natural indirect effect.
    The sweeps make it; arrays of one's own will do too.

    Attributes
    ----------
    mediator, tokens, outcome : str
        What was set, and where, and on what the effects are.
    model : str
        The architecture.
    item_ids, clusters : tuple of str
    n_layers, n_heads : int
        Size of the model's grid of heads.
    sites : tuple of Site
        What was swept one by one, in the order of the arrays' last axis; empty where sets were swept. Names
        ("head 14.1", "mlp 14") and pairs (layer, head) will do.
    sets : mapping of str to tuple of Site
        The named sets swept, in the order of the arrays' last axis; empty where single sites were.
    paths : mapping of str to tuple of paths
        Where the mediator is a path, the paths of each of `sets`, which then has the heads on them; a path is
        a tuple of (layer, head).
    y00, y11 : ndarray or None, shape (items,)
        Outcomes of the clean runs; None in a knockout.
    y10, y01 : ndarray or None, shape (items, mediators)
        Outcomes of the crossed runs; None where they were not run. The effects have the same shape; `grid`
        lays one out as items x layers x heads.
    y, y_cut : ndarray or None, shape (items,), (items, mediators)
        In a knockout, outcome of the prompt as it is and with one head's edges to the segment cut.
    segment : str
        Of a knockout.
    arm : int or None
        Whose prompt a knockout is of.
    floor : float or None
        The numerical floor, in the outcome's unit: the most by which a patched run in which nothing is
        patched differed from the whole run, or, of a model in half precision, by which a row may
        differ from float32's. An effect below it cannot be told from rounding.
    notes : tuple of str
        The floor in words, and what else a reader has to know: which output z of a head is meant where
        more than one could be, and half precision.

    Examples
    --------
    >>> e = Sweep(y00=[-3.0], y11=[-1.0], y10=[[-1.5, -1.0]])
    >>> e.te.tolist(), e.nie.tolist(), e.nde.tolist(), e.quantities
    ([2.0], [[0.5, 0.0]], [[1.5, 2.0]], ('nie', 'nde'))
    """

    y00: Array | None = None
    y11: Array | None = None
    y10: Array | None = None
    y01: Array | None = None
    y: Array | None = None
    y_cut: Array | None = None
    mediator: str = ""
    tokens: str = "answer"
    outcome: str = ""
    model: str = ""
    item_ids: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()
    n_layers: int = 0
    n_heads: int = 0
    sites: tuple[Site, ...] = ()
    sets: Mapping[str, tuple[Site, ...]] = field(default_factory=dict)
    paths: Mapping[str, tuple[tuple[Head, ...], ...]] = field(default_factory=dict)
    segment: str = ""
    arm: int | None = None
    floor: float | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "sites", as_sites(self.sites))
        object.__setattr__(self, "sets", {name: as_sites(own) for name, own in self.sets.items()})
        named = len(self.labels)
        for name in _PATCHED if named else ():
            shape = np.shape(getattr(self, name))
            if shape and shape[1:] != (named,):
                raise MediationError(
                    f"{name} has the shape {shape}, and has to be items x {counted(named, self.kind)}",
                    hint="its last axis has what sites, or sets, name; by layer and head: Sweep.from_arrays",
                )

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads among the sites."""
        return heads_of(self.sites)

    @property
    def scale(self) -> str:
        """What the effects are on, in words, and their unit: nats, or risk differences."""
        return scale_words(self.outcome, binary=self.binary)

    @property
    def binary(self) -> bool:
        """Whether every outcome is 0 or 1."""
        runs = [y for y in (getattr(self, name) for name in (*_CLEAN, *_PATCHED)) if y is not None]
        return bool(runs) and all(bool(np.isin(y, (0.0, 1.0)).all()) for y in runs)

    @property
    def sentence(self) -> str:
        """What was swept, in words; `infer_heads` says what may be said of it."""
        shapes = [np.shape(x) for x in (getattr(self, n) for n in (*_PATCHED, *_CLEAN)) if x is not None]
        what = counted(math.prod(shapes[0][1:]), self.kind) if shapes else "no head"
        effects = ", ".join(self.quantities) or "no effects"
        on = f" on {self.scale}" if self.outcome else ""
        items = counted(shapes[0][0] if shapes else 0, "item")
        return f"{effects} of {what}{on}, each of {items}; no intervals."

    def _cells(self) -> Cells:
        """Give the means over the items, the largest of the first effect first."""
        means = [self.effect(q).mean(0).ravel() for q in self.quantities]
        order = np.argsort(-np.abs(means[0]), kind="stable").tolist() if means and self.labels else []
        rows = [[self.labels[k], *(format_number(float(m[k])) for m in means)] for k in order]
        return [self.kind, *(f"mean {q}" for q in self.quantities)], rows

    def _remarks(self) -> tuple[str, ...]:
        return self.notes

    @property
    def te(self) -> Array:
        """Total effect, ``Y(1, M(1)) - Y(0, M(0))``, one an item."""
        return self._minus("te", "y11", "y00")

    @property
    def nie(self) -> Array:
        """Natural indirect effect, ``Y(1, M(1)) - Y(1, M(0))``."""
        return self._minus("nie", "y11", "y10")

    @property
    def nde(self) -> Array:
        """Natural direct effect, ``Y(1, M(0)) - Y(0, M(0))``: ``te == nde + nie``."""
        return self._minus("nde", "y10", "y00")

    @property
    def pure_nie(self) -> Array:
        """Pure natural indirect effect, ``Y(0, M(1)) - Y(0, M(0))``."""
        return self._minus("pure_nie", "y01", "y00")

    @property
    def total_nde(self) -> Array:
        """Total natural direct effect, ``Y(1, M(1)) - Y(0, M(1))``: ``te == pure_nie + total_nde``."""
        return self._minus("total_nde", "y11", "y01")

    @property
    def controlled_effect(self) -> Array:
        """``Y - Y(edges cut)``: what the head's view of the segment is worth, items x mediators."""
        return self._minus("controlled_effect", "y", "y_cut")

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names of the effects that can be had beside ``te``."""
        found = zip(_PATCHED, (_NATURAL[:2], _NATURAL[2:], ("controlled_effect",)), strict=True)
        return tuple(q for name, effects in found if getattr(self, name) is not None for q in effects)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the sites or sets."""
        return tuple(self.sets) or tuple(map(str, self.sites))

    @property
    def kind(self) -> str:
        """What one of them is: "path", "part", "set", or the one kind of all sites, or "site"."""
        if self.mediator == "features":
            return "part"
        return "path" if self.paths else "set" if self.sets else kind_of(self.sites)

    def effect(self, quantity: str) -> Array:
        """One effect by its name, items x mediators.

        Parameters
        ----------
        quantity : {"nie", "nde", "pure_nie", "total_nde", "controlled_effect"}

        Returns
        -------
        ndarray

        Raises
        ------
        MediationError
            If the quantity is unknown or was not run.
        """
        known = (*_NATURAL, "controlled_effect")
        if quantity not in known:
            raise MediationError(f"unknown quantity {quantity!r}", hint=f"one of {', '.join(known)}")
        array: Array = getattr(self, quantity)
        return array

    def grid(self, quantity: str = "nie") -> Array:
        """One quantity, by its name as in `effect`, laid out as the model's heads are.

        Returns
        -------
        ndarray, shape (items, layers, heads)
            NaN where a head was not swept by itself.
        """
        at = [k for k, site in enumerate(self.sites) if site.kind == "head"]
        return laid_out(self.effect(quantity)[:, at], self.heads, self.n_layers, self.n_heads)

    def to_arrays(self) -> dict[str, Any]:
        """Outcomes and effects as plain arrays, laid out as the model's heads are: for other tools.

        Returns
        -------
        dict of str to ndarray
            `item_ids` and `clusters`, (items,); the clean outcomes `y00` and `y11` and `te`, (items,); the
            patched ones `y10` and `y01` and the effects that were run (`nie`, ...), (items, layers, heads),
            NaN where a head was not swept; `outcome`, `mediator`, `tokens` and `model` as text.
            ``numpy.savez`` takes them as they are.

        Raises
        ------
        MediationError
            If other sites than heads were swept, or sets, or a knockout: they have no place by layer and
            head, or no two prompts.

        Examples
        --------
        >>> e = Sweep(y00=[-3.0], y11=[-1.0], y10=[[-1.5]], sites=((0, 1),), n_layers=1, n_heads=2,
        ...           item_ids=("a",), clusters=("a",))
        >>> e.to_arrays()["nie"].tolist()
        [[[nan, 0.5]]]
        """
        if self.kind != "head" or not self.sites or self.y00 is None or self.y11 is None:
            raise MediationError(
                "only a sweep of single heads, between two prompts, is laid out by layer and head",
                hint="head_sweep gives one; to_frame() has the others",
            )
        patched = {name: self._run(name, name) for name in ("y10", "y01") if getattr(self, name) is not None}
        grids = patched | {name: self.effect(name) for name in self.quantities}
        shape = self.heads, self.n_layers, self.n_heads
        return {
            "item_ids": np.array(self.item_ids),
            "clusters": np.array(self.clusters),
            **{name: self._run(name, name) for name in ("y00", "y11")},
            "te": self.te,
            **{name: laid_out(values, *shape) for name, values in grids.items()},
            **{name: np.array(getattr(self, name)) for name in WORDS},
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Self:
        """Read arrays by layer and head: of a sweep, or what another tool measured.

        `infer_heads` then gives another tool's numbers their intervals, and `contrast_heads` holds them
        against a sweep of whyprompt's, item by item.

        Parameters
        ----------
        arrays : mapping of str to array
            As `to_arrays` gives them; tensors will do, and what ``numpy.load`` reads. Needed are `y00` and
            `y11`, (items,), and of (items, layers, heads) at least one of `y10` or `nie`, and `y01` or
            `pure_nie`; where both are there, the outcome counts. Items are numbered without `item_ids`, and
            each is its own cluster without `clusters`. Anything else is left.

        Returns
        -------
        Sweep

        Raises
        ------
        MediationError
            If an array is missing, has another shape, or holds what is no finite number; NaN may stand for
            a head that no item was swept for.

        Examples
        --------
        >>> e = Sweep.from_arrays({"y00": [-3.0], "y11": [-1.0], "y10": [[[-1.5, -1.0]]]})
        >>> e.heads, e.nie.tolist()
        (((0, 0), (0, 1)), [[0.5, 0.0]])
        """
        return cls(**fields_of(arrays))

    def ranked(self, quantity: str = "nie") -> tuple[Head, ...]:
        """Heads from the largest mean effect down, of a quantity by its name as in `effect`.

        Returns
        -------
        tuple of (layer, head)
        """
        down = np.argsort(-self.effect(quantity).mean(0), kind="stable")
        return heads_of([self.sites[i] for i in down])

    def of_kind(self, *kinds: Kind) -> Self:
        """Give the sweep of some kinds of sites alone: "head", "attn", "mlp", "neuron", "resid".

        Returns
        -------
        Sweep
        """
        at = [k for k, site in enumerate(self.sites) if site.kind in kinds]
        kept: dict[str, Any] = {"sites": tuple(self.sites[k] for k in at)}
        for name in _PATCHED:
            y = getattr(self, name)
            kept[name] = None if y is None else np.asarray(y)[:, at]
        return replace(self, **kept)

    def to_frame(self) -> pd.DataFrame:
        """One row an item and site or set.

        Returns
        -------
        pandas.DataFrame
            Columns item_id, cluster, layer and head (or site, kind and layer where not all are heads; or set
            and n_sites), te (not of a knockout), and the effects that were run.
        """
        import pandas as pd

        names = columns_of(self.sites, self.sets)
        n, k = len(self.item_ids), len(self.labels)
        return pd.DataFrame(
            {"item_id": np.repeat(self.item_ids, k), "cluster": np.repeat(self.clusters, k)}
            | {name: np.tile(own, n) for name, own in names.items()}
            | ({} if self.y00 is None else {"te": np.repeat(self.te, k)})
            | {q: self.effect(q).ravel() for q in self.quantities}
        )

    def _minus(self, quantity: str, left: str, right: str) -> Array:
        """Subtract with items along the first axis and the shorter shape padded on the right."""
        x, y = (self._run(name, quantity) for name in (left, right))
        if x.shape[0] != y.shape[0]:
            raise MediationError(f"{left} has {x.shape[0]} items but {right} has {y.shape[0]}")
        ndim = max(x.ndim, y.ndim)
        x, y = (v.reshape(v.shape + (1,) * (ndim - v.ndim)) for v in (x, y))
        return np.asarray(x - y)

    def _run(self, name: str, quantity: str) -> Array:
        """Give the outcomes of some runs, checked to be there and finite."""
        value = getattr(self, name)
        if value is None:
            raise MediationError(
                f"{quantity} needs {name}, which this sweep did not run",
                hint=_HINTS.get(quantity, f"ask for it: directions=('{quantity}',)"),
            )
        array = np.asarray(value, dtype=np.float64)
        if array.ndim == 0:
            raise MediationError(f"{name} must have items along its first axis, but it is a scalar")
        if not np.isfinite(array).all():
            raise MediationError(
                f"{name} holds {int((~np.isfinite(array)).sum())} values that are not finite",
                hint="a NaN or infinite outcome comes from the model's logits; leave the item out or mend it",
            )
        return array


def heads_of(sites: Iterable[Site]) -> tuple[Head, ...]:
    """Give the heads among some sites, as (layer, head)."""
    return tuple((s.layer, s.number) for s in sites if s.kind == "head" and s.number is not None)


def kind_of(sites: Iterable[Site]) -> str:
    """Give the one kind of all sites, or "site"; heads where there are none."""
    kinds = {site.kind for site in sites} or {"head"}
    return kinds.pop() if len(kinds) == 1 else "site"


def columns_of(sites: Sequence[Site], sets: Mapping[str, tuple[Site, ...]]) -> dict[str, list[Any]]:
    """Columns that name sites, or sets."""
    if sets:
        return {"set": list(sets), "n_sites": [len(own) for own in sets.values()]}
    layers = [site.layer for site in sites]
    if kind_of(sites) == "head":
        return {"layer": layers, "head": [site.number for site in sites]}
    return {"site": [str(site) for site in sites], "kind": [site.kind for site in sites], "layer": layers}
