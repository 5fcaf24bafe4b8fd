"""What heads attend to at the answer positions, measured and not intervened on."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from whyprompt._display import Cells, Shown
from whyprompt._words import counted, format_number
from whyprompt._workers.place import map_units
from whyprompt.errors import MediationError
from whyprompt.mediation.engine.apart import Opening, goes_apart
from whyprompt.mediation.sweep import check_heads, open_runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from whyprompt._progress import Progress
    from whyprompt.mediation.engine.engine import ModelRuntime
    from whyprompt.mediation.engine.sites import SiteLike
    from whyprompt.mediation.pairs import PromptPair, Spans
    from whyprompt.mediation.results import Head

    Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionCapture(Shown):
    """Attention mass by named segment, and entropy, of chosen heads under both prompts.

    Attributes
    ----------
    item_ids, clusters : tuple of str
    heads : tuple of (layer, head)
    segments : tuple of str
        Names of all segments, then "(other)" for the prompt's unnamed tokens, "(answer)" for
        the answer tokens already given, and "(sink)" for mass that a sink took.
    mass : ndarray, shape (items, 2, heads, segments)
        Mean over the answer positions; sums to one over the last axis unless segments overlap.
        NaN where a prompt has no such segment.
    entropy : ndarray, shape (items, 2, heads)
        Of the attention rows, in nats, mean over the answer positions.
    """

    item_ids: tuple[str, ...]
    clusters: tuple[str, ...]
    heads: tuple[Head, ...]
    segments: tuple[str, ...]
    mass: Array
    entropy: Array

    @property
    def sentence(self) -> str:
        """What was looked at, in words."""
        heads, items = counted(len(self.heads), "head"), counted(len(self.item_ids), "item")
        return f"Where {heads} look at the answer positions of {items}, under both prompts; no effects."

    def _cells(self) -> Cells:
        """Give the mass of each segment, its mean over items and heads, under either prompt."""
        there = ~np.isnan(self.mass)
        n = there.sum((0, 2))
        mean = np.where(there, self.mass, 0.0).sum((0, 2)) / np.maximum(n, 1)
        rows = [
            [name, *(format_number(float(mean[arm, k])) if n[arm, k] else "" for arm in (0, 1))]
            for k, name in enumerate(self.segments)
        ]
        return ["segment", "mass under prompt 0", "mass under prompt 1"], rows

    def to_frame(self) -> pd.DataFrame:
        """One row an item, arm, head and segment that the arm has, with mass and entropy.

        Returns
        -------
        pandas.DataFrame
            Columns item_id, cluster, arm, layer, head, segment, mass, entropy.
        """
        import pandas as pd

        n, _, k, s = self.mass.shape
        item, arm, head, segment = (a.ravel() for a in np.indices(self.mass.shape))
        layers = np.array(self.heads)
        frame = pd.DataFrame(
            {
                "item_id": np.asarray(self.item_ids)[item],
                "cluster": np.asarray(self.clusters)[item],
                "arm": arm,
                "layer": layers[head, 0],
                "head": layers[head, 1],
                "segment": np.asarray(self.segments)[segment],
                "mass": self.mass.ravel(),
                "entropy": np.broadcast_to(self.entropy[..., None], (n, 2, k, s)).ravel(),
            }
        )
        return frame[frame["mass"].notna()].reset_index(drop=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadCapture(Shown):
    """Attention patterns and outputs of chosen heads at chosen positions of one prompt, token by token.

    A study keeps one of each arm, the mean over the answer positions, without outputs; its page shows it.

    Attributes
    ----------
    item_id : str
    arm : int or str
        Which of its prompts: 0 or 1, or the arm's name.
    heads : tuple of (layer, head)
    segments : tuple of str
        The segment of every token; "" where it has none.
    weights : ndarray, shape (heads, positions, tokens)
        Attention, zero on tokens that a position cannot see. Rows sum to one, less what a sink took.
    outputs : ndarray or None, shape (heads, positions, head_dim)
        Each head's own output z, before the output projection mixes the heads.
    positions : tuple of int
        Of the prompt with all answer tokens but the last, counted from its start.
    token_ids : tuple of int
        Those tokens.
    tokens : tuple of str
        Those tokens as text, where somebody has decoded them.
    """

    item_id: str
    arm: int | str
    heads: tuple[Head, ...]
    segments: tuple[str, ...]
    weights: Array
    outputs: Array | None = None
    positions: tuple[int, ...] = ()
    token_ids: tuple[int, ...] = ()
    tokens: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """What was looked at, in words."""
        heads, places = counted(len(self.heads), "head"), counted(self.weights.shape[1], "position")
        return f"Where {heads} look from {places} of {self.item_id!r} under prompt {self.arm}; no effects."

    @property
    def mean_weights(self) -> Array:
        """Attention averaged over the positions, (heads, tokens)."""
        return np.asarray(self.weights.mean(1))


def capture_attention(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    pairs: Sequence[PromptPair],
    *,
    heads: Sequence[SiteLike] | None = None,
    max_extra_bytes: int = 256 << 20,
    progress: Progress | None = None,
) -> AttentionCapture:
    """Attention mass on each named segment at the answer positions, for every head and item.

    Only the answer positions' rows are computed and only their sums are kept.

    Parameters
    ----------
    model, pairs, heads, max_extra_bytes, progress
        As in `head_sweep`.

    Returns
    -------
    AttentionCapture

    Raises
    ------
    MediationError
        As in `head_sweep`.

    Examples
    --------
    >>> capture_attention(model, pairs).to_frame()  # doctest: +SKIP
    """
    names = sorted({name for p in pairs for name in (*p.segments0, *p.segments1)})
    segments = (*names, "(other)", "(answer)", "(sink)")
    with open_runtime(model, pairs, max_extra_bytes) as runtime:
        chosen = check_heads(heads, runtime.n_layers, runtime.width)
        mass = np.full((len(pairs), 2, len(chosen), len(segments)), np.nan)
        entropy = np.zeros(mass.shape[:3])
        if goes_apart():
            found = map_units(_MassWork(Opening.of(runtime, pairs), tuple(chosen), tuple(names)), pairs)
        else:
            found = ((i, _masses(runtime, pair, chosen, names)) for i, pair in enumerate(pairs))
        for count, (i, of_pair) in enumerate(found, start=1):
            mass[i], entropy[i] = of_pair
            if progress is not None:
                progress(count, len(pairs), "items")
    return AttentionCapture(
        item_ids=tuple(p.item_id for p in pairs),
        clusters=tuple(p.cluster for p in pairs),
        heads=tuple(chosen),
        segments=segments,
        mass=mass,
        entropy=entropy,
    )


@dataclass(frozen=True)
class _MassWork:
    """The work of one pair's attention mass at a time."""

    opening: Opening
    heads: tuple[Head, ...]
    names: tuple[str, ...]

    @contextmanager
    def opened(self) -> Iterator[Callable[[PromptPair], tuple[Array, Array]]]:
        with self.opening.opened() as runtime:
            yield lambda pair: _masses(runtime, pair, self.heads, self.names)


def _masses(
    runtime: ModelRuntime, pair: PromptPair, heads: Sequence[Head], names: Sequence[str]
) -> tuple[Array, Array]:
    """Mass on each segment, the last three beside them, and entropy, of one pair under both prompts."""
    mass = np.full((2, len(heads), len(names) + 3), np.nan)
    entropy = np.zeros(mass.shape[:2])
    worlds = runtime.clean_many(
        [(ids, pair.answer_ids) for ids in (pair.ids0, pair.ids1)],
        keep_weights=True,
        items=[pair.item_id] * 2,
        patched=[False] * 2,
    )
    for arm, (ids, spans) in enumerate(((pair.ids0, pair.segments0), (pair.ids1, pair.segments1))):
        rows = [state.weights for state in worlds[arm].layers]
        w = np.stack([_numpy(rows[layer], head) for layer, head in heads])
        other = np.ones(len(ids), dtype=bool)
        for name, value in spans.items():
            inside = np.zeros(len(ids), dtype=bool)
            for start, stop in value:
                inside[start:stop] = True
            other &= ~inside
            mass[arm, :, names.index(name)] = w[..., : len(ids)][..., inside].sum(-1).mean(-1)
        mass[arm, :, -3] = w[..., : len(ids)][..., other].sum(-1).mean(-1)
        mass[arm, :, -2] = w[..., len(ids) :].sum(-1).mean(-1)
        mass[arm, :, -1] = np.clip(1 - w.sum(-1), 0, None).mean(-1)
        entropy[arm] = -(w * np.log(np.where(w > 0, w, 1))).sum(-1).mean(-1)
    return mass, entropy


def capture_heads(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    pair: PromptPair,
    *,
    arm: Literal[0, 1] = 1,
    heads: Sequence[SiteLike] | None = None,
    positions: Sequence[int] | None = None,
) -> HeadCapture:
    """Attention patterns and head outputs at chosen positions, token by token; nothing else is kept.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    pair : PromptPair
    arm : {0, 1}
        Which of its prompts.
    heads : sequence of (layer, head) or str, optional
        All heads by default.
    positions : sequence of int, optional
        Of the prompt with all answer tokens but the last; negative ones count from its end, so
        that -1 predicts the last answer token. The answer positions by default.

    Returns
    -------
    HeadCapture

    Raises
    ------
    MediationError
        If a position is outside the prompt, and as in `head_sweep`.

    Examples
    --------
    >>> capture_heads(model, pairs[0]).weights.mean(1)  # doctest: +SKIP
    >>> capture_heads(model, pairs[0], heads=[(23, 0)], positions=[40, -1]).outputs  # doctest: +SKIP
    """
    from whyprompt.mediation.engine.clean import Observer

    if arm not in (0, 1):
        raise MediationError(f"arm is {arm!r}, but it is 0 or 1")
    ids, spans = (pair.ids1, pair.segments1) if arm else (pair.ids0, pair.segments0)
    tokens = (*ids, *pair.answer_ids[:-1])
    positions = range(-pair.n_answer, 0) if positions is None else positions
    if not positions:
        raise MediationError("positions is empty", hint="leave it out for the answer positions")
    for position in positions:
        if not -len(tokens) <= position < len(tokens):
            raise MediationError(
                f"item {pair.item_id!r}: position {position} is outside prompt {arm}, which has "
                f"{len(tokens)} tokens"
            )
    at = tuple(int(p) % len(tokens) for p in positions)
    with open_runtime(model, [pair], 256 << 20) as runtime:
        chosen = check_heads(heads, runtime.n_layers, runtime.width)
        observer = Observer(at, chosen, runtime.attending)
        runtime.observe(ids, pair.answer_ids, observer, item=pair.item_id)
    weights, outputs = (
        np.stack([part[head].double().cpu().numpy() for head in chosen])
        for part in (observer.weights, observer.outputs)
    )
    return HeadCapture(
        item_id=pair.item_id,
        arm=arm,
        heads=tuple(chosen),
        positions=at,
        token_ids=tokens,
        segments=_names(spans, len(tokens)),
        weights=weights,
        outputs=outputs,
    )


def _names(spans: Mapping[str, Spans], n: int) -> tuple[str, ...]:
    """Give each of n tokens the name of its segment."""
    names = [""] * n
    for name, value in spans.items():
        for start, stop in value:
            names[start:stop] = [name] * (stop - start)
    return tuple(names)


def _numpy(weights: Any, head: int) -> Array:  # noqa: ANN401  # a tensor; torch is not imported here
    array: Array = weights[head].double().cpu().numpy()
    return array
