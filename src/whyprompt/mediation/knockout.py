"""What a head's view of a segment is worth: its edges to it cut, in one prompt."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from whyprompt.errors import MediationError
from whyprompt.mediation.engine.runner import check_saved, digest_of, run_pairs, score_of
from whyprompt.mediation.engine.sites import as_sites
from whyprompt.mediation.results import PairOutcomes, Sweep
from whyprompt.mediation.sweep import check_heads, found_of, here, open_runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from whyprompt._progress import Progress
    from whyprompt.mediation.engine.sites import SiteLike
    from whyprompt.mediation.pairs import PromptPair


def knockout_sweep(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    pairs: Sequence[PromptPair],
    segment: str,
    *,
    arm: Literal[0, 1] = 1,
    heads: Sequence[SiteLike] | None = None,
    outcome: Literal["log_prob", "prob"] = "log_prob",
    max_extra_bytes: int = 256 << 20,
    progress: Progress | None = None,
    on_pair: Callable[[PairOutcomes], None] | None = None,
    done: Mapping[str, PairOutcomes] | None = None,
) -> Sweep:
    """Cut each head's edges from the answer positions to a segment, and renormalise its row.

    A controlled effect of one prompt, not a natural indirect effect.

    Parameters
    ----------
    model, pairs, heads, max_extra_bytes, progress, on_pair, done
        As in `head_sweep`.
    segment : str
        Name of a segment of the prompt of `arm`, in every pair.
    arm : {0, 1}
        Which prompt.
    outcome : {"log_prob", "prob"}

    Returns
    -------
    Sweep

    Raises
    ------
    MediationError
        If a pair has no such segment, or the segment holds every token that could be attended.

    References
    ----------
    Geva et al. (2023). Dissecting recall of factual associations in auto-regressive language
    models. EMNLP, section 5 (attention knockout).

    Examples
    --------
    >>> knockout_sweep(model, pairs, "reasoning").controlled_effect.mean(0)  # doctest: +SKIP
    """
    import torch

    from whyprompt.mediation.engine.actions import cut_edges
    from whyprompt.mediation.engine.patching import Job

    with open_runtime(model, pairs, max_extra_bytes) as runtime:
        chosen = check_heads(heads, runtime.n_layers, runtime.width)

        def digest(pair: PromptPair) -> str:
            ids, segments = (pair.ids1, pair.segments1) if arm else (pair.ids0, pair.segments0)
            return digest_of(ids, pair.answer_ids, segments.get(segment), outcome, chosen)

        def fitting(pair: PromptPair, row: PairOutcomes) -> PairOutcomes:
            options = "segment, heads and outcome"
            return check_saved(pair, row, {"y_cut": True}, len(chosen), digest(pair), options)

        def run(pack: Sequence[PromptPair]) -> Iterator[PairOutcomes]:
            for pair in pack:
                _check_segment(pair, segment, arm)
            worlds = runtime.clean_many(
                [(pair.ids1 if arm else pair.ids0, pair.answer_ids) for pair in pack],
                items=[pair.item_id for pair in pack],
            )
            jobs = []
            for pair, world in zip(pack, worlds, strict=True):
                shape = pair.n_answer, len(world.ids)
                keep = torch.ones(shape, dtype=torch.bool, device=world.hidden.device)
                for start, stop in (pair.segments1 if arm else pair.segments0)[segment]:
                    keep[:, start:stop] = False
                jobs.append(Job(world, [(site,) for site in as_sites(chosen)], cut_edges(keep), pair.item_id))
            for pair, world, out in zip(pack, worlds, runtime.patched_many(jobs), strict=True):
                y, cut = float(score_of(world.log_probs[None], outcome)[0]), score_of(out, outcome)
                yield PairOutcomes(
                    item_id=pair.item_id,
                    cluster=pair.cluster,
                    y=y,
                    y_cut=cut[1:],
                    floor=abs(float(cut[0] - y)),
                    made_with=digest(pair),
                )

        rows = run_pairs(
            runtime,
            pairs,
            partial(here, run),
            fitting,
            kept=lambda p: runtime.token_bytes * len(p.ids1 if arm else p.ids0),
            progress=progress,
            on_pair=on_pair,
            done=done,
        )
        found = found_of(runtime, rows)
        return Sweep(
            mediator="edges", outcome=outcome, sites=as_sites(chosen), segment=segment, arm=arm, **found
        )


def _check_segment(pair: PromptPair, segment: str, arm: int) -> None:
    ids, segments = (pair.ids1, pair.segments1) if arm else (pair.ids0, pair.segments0)
    if segment not in segments:
        raise MediationError(
            f"item {pair.item_id!r}: prompt {arm} has no segment {segment!r}",
            hint=f"it has: {', '.join(segments) or 'none'}",
        )
    if any(stop == len(ids) for _, stop in segments[segment]):
        raise MediationError(
            f"item {pair.item_id!r}: the segment {segment!r} holds the answer position itself"
        )
