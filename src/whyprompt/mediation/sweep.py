"""Sweeps over heads, layers and sets of heads."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast, get_args

from whyprompt._words import counted
from whyprompt._workers.place import map_units
from whyprompt.errors import MediationError
from whyprompt.mediation.engine.apart import PairWork, goes_apart, longest_of
from whyprompt.mediation.engine.runner import (
    PATHS,
    Direction,
    Mediator,
    Outcome,
    Runner,
    Tokens,
    WorldCache,
    run_pairs,
)
from whyprompt.mediation.engine.sites import as_sites, every_site
from whyprompt.mediation.paths import check_paths
from whyprompt.mediation.results import PairOutcomes, Sweep, heads_of, stacked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from whyprompt._progress import Progress
    from whyprompt.mediation.engine.engine import ModelRuntime
    from whyprompt.mediation.engine.routes import Path
    from whyprompt.mediation.engine.sites import Kind, Site, SiteLike
    from whyprompt.mediation.pairs import PromptPair
    from whyprompt.mediation.results import Head

    Sets = dict[str, Sequence[SiteLike] | Sequence[Sequence[SiteLike]]]

_MAX_EXTRA_BYTES = 256 << 20


class SweepOptions(TypedDict, total=False):
    """Options that all sweeps of sites and sets share, told in `head_sweep`."""

    mediator: Mediator
    tokens: Tokens
    directions: Sequence[Direction]
    outcome: Outcome
    max_extra_bytes: int
    progress: Progress | None
    on_pair: Callable[[PairOutcomes], None] | None
    done: Mapping[str, PairOutcomes] | None


def head_sweep(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    pairs: Sequence[PromptPair],
    *,
    heads: Sequence[SiteLike] | None = None,
    mediator: Mediator = "head_output",
    tokens: Tokens = "answer",
    directions: Sequence[Direction] = get_args(Direction),
    outcome: Outcome = "log_prob",
    max_extra_bytes: int = _MAX_EXTRA_BYTES,
    progress: Progress | None = None,
    on_pair: Callable[[PairOutcomes], None] | None = None,
    done: Mapping[str, PairOutcomes] | None = None,
) -> Sweep:
    """Effect of every head, each patched alone, item by item.

    Exact: no gradient and no sampling. The price of a patched run is the answer positions.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A causal language model whose attention goes through ``AttentionInterface``.
    pairs : sequence of PromptPair
        One an item.
    heads : sequence of (layer, head) or str, optional
        All heads by default; "head 14.1" names one, "head 14" all of a layer.
    mediator : {"head_output", "attention_row", "path", "direct_path"}
        What a head mediates with: its output z at the answer positions, or its attention row
        there; the last two are of paths, see `set_sweep`. Attention rows have the longer prompt as
        base only, so they give `nie` and `nde` where prompt 1 is the longer, and `pure_nie` and
        `total_nde` where prompt 0 is.
    tokens : {"answer", "suffix"}
        Where a site is set: at the answer positions; or at every token of the longest suffix that the two
        prompts share and at the answer positions behind it. The last token of one prompt is then set to
        its value at the last token of the other, the one before to the one before, and so on. What was moved
        before the answer, say where the question is read after worked examples, shows in the latter
        only; its price is the suffix instead of the answer.
    directions : sequence of {"nie", "nde", "pure_nie", "total_nde"}
        Which effects to run. The first two need one set of patched runs, the last two another.
    outcome : {"log_prob", "prob", "margin", "first_token"}
        Log-probability of the whole gold answer; its probability; its log-probability less the foil's (each
        teacher-forced; of one token each, a difference of two logits of one run); or 1 where the answer's
        first token is strictly the most probable, and 0 where it is not. Effects on the probability, and on
        what is 0 or 1, are risk differences, the others are in nats: `Sweep.scale`. What the model writes as
        a whole: `generation_sweep`.
    max_extra_bytes : int
        Budget for the activations of patched rows; rows are chunked to it.
    progress : callable, optional
        Called with (pairs finished, pairs in all, a word of what they are).
    on_pair : callable, optional
        Called with each finished item's `PairOutcomes`, to save it.
    done : mapping of item_id to PairOutcomes, optional
        Items finished in an earlier run, which are not run again.

    Returns
    -------
    Sweep

    Raises
    ------
    MediationError
        If the architecture cannot be analysed, a head is out of range, logits are not finite,
        the prompts cannot be aligned (``attention_row``), or `done` does not fit this sweep.

    References
    ----------
    Vig et al. (2020). Investigating gender bias in language models using causal mediation
    analysis. NeurIPS 33, section 3.

    Examples
    --------
    >>> sweep = head_sweep(model, pairs)  # doctest: +SKIP
    >>> sweep.grid("nie").mean(0)  # doctest: +SKIP
    """
    options: dict[str, Any] = {"mediator": mediator, "directions": directions, "outcome": outcome}
    with open_runner(model, pairs, max_extra_bytes=max_extra_bytes, tokens=tokens, **options) as runner:
        runtime = runner.runtime
        chosen = check_heads(heads, runtime.n_layers, runtime.width)
        return sweep_rows(runner, pairs, as_sites(chosen), progress, on_pair, done)


def site_sweep(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    pairs: Sequence[PromptPair],
    sites: Sequence[SiteLike],
    **options: Unpack[SweepOptions],
) -> Sweep:
    """Effect of heads, blocks, neurons and the residual stream, each set alone, item by item.

    Exact, as `head_sweep`, which is this for heads alone; what is said of one sweep's sites allows for all of
    them (`infer_heads`).

    Parameters
    ----------
    model, pairs
        As in `head_sweep`.
    sites : sequence of str
        Names: "head 14.1" for one head, "attn 14" for the output of a layer's attention block, "mlp 14" for
        that of its feed-forward block, "neuron 14.123" for one of the numbers that enter the last product of
        that block, "resid 14" for the residual stream after the layer; "head 14" or "neuron 14" for all of a
        layer, and "head", "attn", "mlp" or "resid" for all of the model. Layers count from 0. A pair (layer,
        head) will do for a head. Heads come first in the result, then the others as they were named.
    **options
        As in `head_sweep`, but `heads`.

    Returns
    -------
    Sweep

    Raises
    ------
    MediationError
        As in `head_sweep`; if a name names no site, or the model has none of that kind.

    Notes
    -----
    A block's output is what its module gives, before any norm or factor that a model puts between it and the
    residual stream (Gemma 2 and 3, OLMo 2, Granite): these are functions of that output alone, so that the
    effect is the same on either side of them. The residual stream after the last layer is all that the answer
    is computed from: there the natural direct effect is zero.

    Examples
    --------
    >>> site_sweep(model, pairs, ["head", "mlp", "resid", "neuron 14"]).to_frame()  # doctest: +SKIP
    """
    return _sweep_of_sets(model, pairs, lambda _: sites, **options)


def set_sweep(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    pairs: Sequence[PromptPair],
    sets: Mapping[str, Sequence[SiteLike] | Sequence[Sequence[SiteLike]]],
    **options: Unpack[SweepOptions],
) -> Sweep:
    """Joint effect of each of several sets of heads or other sites, patched together; or of paths.

    Effects of single heads do not add up to it: heads back each other up and feed each other.

    With ``mediator="path"``, heads in a row of ascending layers are a path, A to B: the head B is set to
    what it computes where A alone has its value under the other prompt, `nie` from ``Y(1, B(1, A(0)))`` and
    `pure_nie` from ``Y(0, B(0, A(1)))``. Whatever lies between A and B passes on what A does. With
    ``"direct_path"`` nothing does but the residual stream: in the run that gives B its value, every other
    head's output and all else that the layers add, from A's layer to B's, are held at their own arm's values.
    The run that B's value is put into is never held. A set of several paths is a sequence of paths.

    Parameters
    ----------
    model, pairs
        As in `head_sweep`.
    sets : mapping of str to sequence of (layer, head)
        Named sets; sites by their names, as in `site_sweep`, will do. Where one site of a set feeds another,
        both are set. Or named paths, or sets of paths.
    **options
        As in `head_sweep`, but `heads`.

    Returns
    -------
    Sweep

    Raises
    ------
    MediationError
        As in `head_sweep`, or if a set is empty; if a path does not ascend, or paths that are set
        together meet in a head and do not part there again in every way: that head, which
        Avin, Shpitser and Pearl call a recanting witness, would need two values at once.

    References
    ----------
    Pearl (2001). Direct and indirect effects. UAI, section 4 (path-specific effects).
    Avin, Shpitser and Pearl (2005). Identifiability of path-specific effects. IJCAI, section 4.
    Wang et al. (2023). Interpretability in the wild. ICLR, section 3.1 (path patching).

    See Also
    --------
    relate_heads : Paths, joint effect and interactions of chosen heads, with intervals.

    Examples
    --------
    >>> set_sweep(model, pairs, {"late": [(23, 0), (25, 4)]}).nie.mean(0)  # doctest: +SKIP
    >>> set_sweep(model, pairs, {"on": [(3, 1), (7, 0)]}, mediator="path").nie  # doctest: +SKIP
    """
    if not sets:
        raise MediationError("sets is empty", hint="name at least one set")
    return _sweep_of_sets(model, pairs, lambda _: dict(sets), **options)


def _sweep_of_sets(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    pairs: Sequence[PromptPair],
    rows: Callable[[ModelRuntime], Sets | Sequence[SiteLike]],
    *,
    progress: Progress | None = None,
    on_pair: Callable[[PairOutcomes], None] | None = None,
    done: Mapping[str, PairOutcomes] | None = None,
    **options: Any,  # noqa: ANN401  # of `open_runner`
) -> Sweep:
    """Open the model once, see which sites or sets it has, and sweep them."""
    with open_runner(model, pairs, **options) as runner:
        return sweep_rows(runner, pairs, rows(runner.runtime), progress, on_pair, done)


@contextlib.contextmanager
def open_runner(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    pairs: Sequence[PromptPair],
    *,
    mediator: Mediator = "head_output",
    tokens: Tokens = "answer",
    directions: Sequence[Direction] = get_args(Direction),
    outcome: Outcome = "log_prob",
    max_extra_bytes: int = _MAX_EXTRA_BYTES,
    keep: bool = False,
) -> Iterator[Runner]:
    """Open a model for sweeps over the same pairs; `keep` holds clean runs for the next one, if they fit."""
    with open_runtime(model, pairs, max_extra_bytes) as runtime:
        cache = WorldCache(max_extra_bytes // 2) if keep else None
        if mediator == "direct_path":
            from whyprompt.mediation.engine.routes import check_freezing

            first = pairs[0]
            check_freezing(runtime, runtime.clean(first.ids1, first.answer_ids), first.item_id)
        yield Runner(runtime, (), mediator, check_directions(directions), outcome, cache, tokens)


def sweep_rows(
    runner: Runner,
    pairs: Sequence[PromptPair],
    rows: Sets | Sequence[SiteLike] | None,
    progress: Progress | None = None,
    on_pair: Callable[[PairOutcomes], None] | None = None,
    done: Mapping[str, PairOutcomes] | None = None,
) -> Sweep:
    """Sweep named sets of sites, or single sites, on a model that is open already; all heads by default."""
    runtime = runner.runtime
    paths: dict[str, tuple[Path, ...]] = {}
    if runner.mediator not in PATHS:
        sites, sets = read_rows(runtime, rows)
    elif isinstance(rows, dict):
        sites, sets = (), {}
        for name, own in rows.items():
            if not own:
                raise MediationError(f"the set {name!r} holds no sites")
            paths[name] = check_paths(own, name, runtime.n_layers, runtime.width)
            sets[name] = as_sites(dict.fromkeys(head for path in paths[name] for head in path))
    else:
        raise MediationError(
            f"mediator={runner.mediator!r} is of what heads pass on to each other, and one head has no path",
            hint="name the paths: set_sweep(model, pairs, {'name': [(0, 1), (2, 3)]}, mediator='path')",
        )
    runner = replace(runner, rows=[*paths.values()] or [*sets.values()] or [(site,) for site in sites])

    def run(packs: list[list[PromptPair]]) -> Iterator[tuple[int, list[PairOutcomes]]]:
        if not goes_apart():
            return here(runner.run, packs)
        # A search comes back to its pairs: to the worker that has their clean runs.
        alike = [pack[0].item_id for pack in packs]
        units = [(runner.rows, pack) for pack in packs]
        return map_units(PairWork.of(runner, pairs), units, alike=alike)

    found = run_pairs(
        runtime,
        pairs,
        run,
        runner.fitting,
        kept=runner.kept_bytes,
        progress=progress,
        on_pair=on_pair,
        done=done,
    )
    known = found_of(runtime, found)
    if runner.tokens == "suffix":
        known["notes"] += (_suffix_note([pair.n_suffix for pair in pairs]),)
    return Sweep(
        mediator=runner.mediator,
        tokens=runner.tokens,
        outcome=runner.outcome,
        sites=sites,
        sets=sets,
        paths=paths,
        **known,
    )


def _suffix_note(lengths: list[int]) -> str:
    """Say at how many tokens sites were set: where prompts end in a cue alone, they are few."""
    low, middle, high = min(lengths), sorted(lengths)[len(lengths) // 2], max(lengths)
    many = counted(low, "token") if low == high else f"{low} to {high} tokens, {middle} in the middle"
    return f"the two prompts of an item end alike in {many}: every site was set there and at the answer"


def read_rows(
    runtime: ModelRuntime, rows: Sets | Sequence[SiteLike] | None
) -> tuple[tuple[Site, ...], dict[str, tuple[Site, ...]]]:
    """Read single sites, or named sets of them, checked against the model; all heads by default."""
    if not isinstance(rows, dict):
        return every_site(["head"] if rows is None else rows, runtime.n_layers, runtime.width), {}
    sets: dict[str, tuple[Site, ...]] = {}
    for name, own in rows.items():
        if not own:
            raise MediationError(f"the set {name!r} holds no sites")
        sets[name] = every_site(cast("Sequence[SiteLike]", own), runtime.n_layers, runtime.width)
    return (), sets


def here(
    run: Callable[[Sequence[PromptPair]], Iterator[PairOutcomes]], packs: list[list[PromptPair]]
) -> Iterator[tuple[int, list[PairOutcomes]]]:
    """Run packs one after the other in this process."""
    for number, pack in enumerate(packs):
        yield number, list(run(pack))


def joint_effect(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    pairs: Sequence[PromptPair],
    heads: Sequence[SiteLike],
    **options: Unpack[SweepOptions],
) -> Sweep:
    """Joint effect of one set of heads.

    Parameters
    ----------
    model, pairs
        As in `head_sweep`.
    heads : sequence of (layer, head)
        The set; sites by their names will do.
    **options
        As in `head_sweep`, but `heads`.

    Returns
    -------
    Sweep
        With one set, named "joint".

    Examples
    --------
    >>> joint_effect(model, pairs, [(23, 0), (25, 4)]).nie[:, 0]  # doctest: +SKIP
    """
    return set_sweep(model, pairs, {"joint": heads}, **options)


def layer_sweep(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    pairs: Sequence[PromptPair],
    **options: Unpack[SweepOptions],
) -> Sweep:
    """Joint effect of all heads of each layer.

    Parameters
    ----------
    model, pairs
        As in `head_sweep`.
    **options
        As in `head_sweep`, but `heads`.

    Returns
    -------
    Sweep
        One set a layer, named "layer 0", "layer 1" and so on.

    See Also
    --------
    infer_heads : Intervals and p-values of each layer.

    Examples
    --------
    >>> layer_sweep(model, pairs).nie.mean(0)  # doctest: +SKIP
    """

    def layers(runtime: ModelRuntime) -> Sets:
        return {
            f"layer {layer}": [(layer, head) for head in range(runtime.n_heads)]
            for layer in runtime.attending
        }

    return _sweep_of_sets(model, pairs, layers, **options)


def found_of(runtime: ModelRuntime, rows: Sequence[PairOutcomes]) -> dict[str, Any]:
    """Arrays of a sweep, the model's size, and what has to be said of it."""
    out = stacked(rows)
    notes = runtime.notes
    if out["floor"] is not None:
        note = (
            f"numerical floor {out['floor']:.1g}: the most by which a run with nothing patched differed from "
            "the whole one"
            + (", or by which a row may differ from float32's" if runtime.by_differences else "")
            + "; an effect below it cannot be told from rounding"
        )
        notes = (note, *notes)
    out |= {"model": runtime.model_type, "n_layers": runtime.n_layers, "n_heads": runtime.n_heads}
    return out | {"notes": notes}


def open_runtime(model: Any, pairs: Sequence[PromptPair], max_extra_bytes: int) -> Any:  # noqa: ANN401  # a context manager
    """Check the pairs as a whole and open the model on the longest prompt among them."""
    from whyprompt.mediation.engine.opening import model_runtime

    if not pairs:
        raise MediationError("no prompt pairs were given")
    seen: set[str] = set()
    for pair in pairs:
        if pair.item_id in seen:
            raise MediationError(f"item {pair.item_id!r} is given twice", hint="one pair an item")
        seen.add(pair.item_id)
    ids, answer, item = longest_of(pairs)
    return model_runtime(model, check=(ids, answer), item=item, max_extra_bytes=max_extra_bytes)


def check_heads(
    heads: Sequence[SiteLike] | None, n_layers: int, width: Callable[[Kind, int], int]
) -> list[Head]:
    """Fill in all heads, or check the chosen ones against the model; their names will do."""
    if heads is not None and not len(heads):
        raise MediationError("heads is empty", hint="leave it out for all heads")
    sites = every_site(["head"] if heads is None else heads, n_layers, width)
    if other := next((site for site in sites if site.kind != "head"), None):
        raise MediationError(
            f"heads names {str(other)!r}, which is no head", hint="site_sweep sets other sites"
        )
    return [*heads_of(sites)]


def check_directions(directions: Sequence[str]) -> frozenset[str]:
    """Refuse directions that there are not."""
    unknown = set(directions) - set(get_args(Direction))
    if unknown or not directions:
        raise MediationError(
            f"unknown directions {sorted(unknown)}" if unknown else "directions is empty",
            hint=f"any of {', '.join(get_args(Direction))}",
        )
    return frozenset(directions)
