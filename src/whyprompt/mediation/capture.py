"""What heads attend to at the answer positions, measured and not intervened on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from whyprompt.errors import MediationError
from whyprompt.mediation.sweep import check_heads, open_runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from whyprompt.mediation.pairs import PromptPair

    Array = NDArray[np.float64]

__all__ = ["AttentionCapture", "AttentionRow", "attention_row", "attention_rows", "capture_attention"]

Head = tuple[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionCapture:
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
class AttentionRow:
    """One head's attention over the tokens of one prompt.

    Attributes
    ----------
    item_id : str
    arm, layer, head : int
    token_ids : tuple of int
        The prompt and all answer tokens but the last.
    segments : tuple of str
        The segment of every token; "" where it has none.
    weights : ndarray, shape (answer, tokens)
        One row an answer position.
    """

    item_id: str
    arm: int
    layer: int
    head: int
    token_ids: tuple[int, ...]
    segments: tuple[str, ...]
    weights: Array


def capture_attention(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    pairs: Sequence[PromptPair],
    *,
    heads: Sequence[Head] | None = None,
    max_extra_bytes: int = 256 << 20,
    progress: Callable[[int, int], None] | None = None,
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
        chosen = check_heads(heads, runtime.n_layers, runtime.n_heads)
        mass = np.full((len(pairs), 2, len(chosen), len(segments)), np.nan)
        entropy = np.zeros(mass.shape[:3])
        for i, pair in enumerate(pairs):
            worlds = runtime.clean_many(
                [(ids, pair.answer_ids) for ids in (pair.ids0, pair.ids1)],
                keep_weights=True,
                items=[pair.item_id] * 2,
            )
            for arm, (ids, spans) in enumerate(((pair.ids0, pair.segments0), (pair.ids1, pair.segments1))):
                world = worlds[arm]
                rows = [state.weights for state in world.layers]
                w = np.stack([_numpy(rows[layer], head) for layer, head in chosen])
                other = np.ones(len(ids), dtype=bool)
                for name, value in spans.items():
                    inside = np.zeros(len(ids), dtype=bool)
                    for start, stop in value:
                        inside[start:stop] = True
                    other &= ~inside
                    mass[i, arm, :, names.index(name)] = w[..., : len(ids)][..., inside].sum(-1).mean(-1)
                mass[i, arm, :, -3] = w[..., : len(ids)][..., other].sum(-1).mean(-1)
                mass[i, arm, :, -2] = w[..., len(ids) :].sum(-1).mean(-1)
                mass[i, arm, :, -1] = np.clip(1 - w.sum(-1), 0, None).mean(-1)
                entropy[i, arm] = -(w * np.log(np.where(w > 0, w, 1))).sum(-1).mean(-1)
            if progress is not None:
                progress(i + 1, len(pairs))
    return AttentionCapture(
        item_ids=tuple(p.item_id for p in pairs),
        clusters=tuple(p.cluster for p in pairs),
        heads=tuple(chosen),
        segments=segments,
        mass=mass,
        entropy=entropy,
    )


def attention_row(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    pair: PromptPair,
    layer: int,
    head: int,
    *,
    arm: Literal[0, 1] = 1,
) -> AttentionRow:
    """Attention of one head at the answer positions, over the tokens of one prompt.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    pair : PromptPair
    layer, head : int
    arm : {0, 1}

    Returns
    -------
    AttentionRow

    Raises
    ------
    MediationError
        As in `head_sweep`.

    Examples
    --------
    >>> attention_row(model, pairs[0], 23, 0).weights  # doctest: +SKIP
    """
    return attention_rows(model, pair, heads=[(layer, head)], arm=arm)[0]


def attention_rows(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    pair: PromptPair,
    *,
    heads: Sequence[Head] | None = None,
    arm: Literal[0, 1] = 1,
) -> list[AttentionRow]:
    """Attention of several heads at the answer positions, from one run.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    pair : PromptPair
    heads : sequence of (layer, head), optional
        All heads by default.
    arm : {0, 1}

    Returns
    -------
    list of AttentionRow
        In the order of the heads.

    Raises
    ------
    MediationError
        As in `head_sweep`.

    Examples
    --------
    >>> [row.weights for row in attention_rows(model, pairs[0])]  # doctest: +SKIP
    """
    if arm not in (0, 1):
        raise MediationError(f"arm is {arm!r}, but it is 0 or 1")
    ids, spans = (pair.ids1, pair.segments1) if arm else (pair.ids0, pair.segments0)
    with open_runtime(model, [pair], 256 << 20) as runtime:
        chosen = check_heads(heads, runtime.n_layers, runtime.n_heads)
        world = runtime.clean(ids, pair.answer_ids, keep_weights=True, item=pair.item_id)
        weights = [_numpy(world.layers[layer].weights, head) for layer, head in chosen]
    names = [""] * len(world.ids)
    for name, value in spans.items():
        for start, stop in value:
            names[start:stop] = [name] * (stop - start)
    return [
        AttentionRow(
            item_id=pair.item_id,
            arm=arm,
            layer=layer,
            head=head,
            token_ids=world.ids,
            segments=tuple(names),
            weights=w,
        )
        for (layer, head), w in zip(chosen, weights, strict=True)
    ]


def _numpy(weights: Any, head: int) -> Array:  # noqa: ANN401  # a tensor; torch is not imported here
    array: Array = weights[head].double().cpu().numpy()
    return array
