"""Features of a given encoder as mediators: a site is set in part, and what no feature says is left."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

from whyprompt.errors import MediationError
from whyprompt.mediation.engine.runner import Direction, Outcome, in_packs, run_pairs
from whyprompt.mediation.engine.sites import as_site, check_sites
from whyprompt.mediation.results import Sweep
from whyprompt.mediation.sweep import found_of, here, open_runner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch

    from whyprompt._progress import Progress
    from whyprompt.mediation.engine.attention import World
    from whyprompt.mediation.engine.blocks import Place
    from whyprompt.mediation.engine.engine import ModelRuntime
    from whyprompt.mediation.engine.patching import Job
    from whyprompt.mediation.engine.runner import Tokens
    from whyprompt.mediation.engine.sites import Site, SiteLike
    from whyprompt.mediation.pairs import PromptPair
    from whyprompt.mediation.results import PairOutcomes

    Code = Callable[[torch.Tensor], torch.Tensor]

ALL, ERROR, SITE = "all features", "error", "site"
_AT_ONCE = 64
"""So many decoded rows at a time: an encoder may have many thousand features."""


def feature_sweep(
    model: Any,  # noqa: ANN401  # a transformers model ships no type
    pairs: Sequence[PromptPair],
    site: SiteLike,
    encode: Code,
    decode: Code,
    *,
    reads: Literal["output", "input"] = "output",
    features: Sequence[int] | None = None,
    groups: Mapping[str, Sequence[int]] | None = None,
    top: int = 32,
    name: str = "",
    tokens: Tokens = "answer",
    directions: Sequence[Direction] = get_args(Direction),
    outcome: Outcome = "log_prob",
    max_extra_bytes: int = 256 << 20,
    progress: Progress | None = None,
    on_pair: Callable[[PairOutcomes], None] | None = None,
    done: Mapping[str, PairOutcomes] | None = None,
) -> Sweep:
    """Effect of single features of a site's output, or of groups of them, item by item.

    The encoder is whatever one has: a sparse autoencoder, a transcoder, a rotation. A site's value is taken
    apart as ``x = decode(f) + e``, *f* what `encode` gives and *e* the error, which is what the features do
    not say. To set feature *j* under prompt 1 to its value under prompt 0 is to set the site to
    ``decode(f(1) with f_j(0)) + e(1)``: nothing of the error is lost or moved. All features and the error
    together are the site.

    Parameters
    ----------
    model, pairs
        As in `head_sweep`.
    site : str or (layer, head)
        One site, as in `site_sweep`, but no neuron: "mlp 14", "attn 14", "resid 14", or a head, whose
        features are then of its output z.
    encode, decode : callable
        Activations (n, width) to features (n, m), and back, as tensors of the model's type and device. They
        are called without gradients, on any number of tokens, each on its own.
    reads : {"output", "input"}
        Whether `encode` is given what the site gives (an autoencoder) or, of an "mlp", what enters that block
        (a transcoder): features of the input whose decoding stands for the output.
    features : sequence of int, optional
        Which to set one by one. By default the `top` ones by the mean size of ``f(1) - f(0)`` at the answer
        positions, over the items: the outcome has no part in that choice.
    groups : mapping of str to sequence of int, optional
        Named groups of features, each set together.
    top : int, default 32
        0 for none.
    name : str
        Of the encoder, by which a resumed sweep knows its own.
    tokens, directions, outcome, max_extra_bytes, progress, on_pair, done
        As in `head_sweep`.

    Returns
    -------
    Sweep
        Its sets are "feature 12" and so on, the groups, and then three wholes: "all features", "error" (the
        error of the other prompt and this one's features) and "site" (all of it).

    Raises
    ------
    MediationError
        As in `site_sweep`; if an encoder gives other shapes, or numbers that are not finite, or a feature is
        out of its range.

    References
    ----------
    Marks et al. (2025). Sparse feature circuits. ICLR (features and errors as mediators).
    Dunefsky, Chlenski and Nanda (2024). Transcoders find interpretable LLM feature circuits. NeurIPS 37.

    Examples
    --------
    >>> sweep = feature_sweep(model, pairs, "mlp 14", sae.encode, sae.decode, top=50)  # doctest: +SKIP
    >>> infer_heads(sweep).sentence  # doctest: +SKIP
    """
    at = as_site(site)
    if at.kind == "neuron" or reads not in {"output", "input"} or (reads == "input" and at.kind != "mlp"):
        raise MediationError(
            f"site is {str(at)!r} with reads={reads!r}, which has no features",
            hint="a head, 'attn 14', 'mlp 14' or 'resid 14'; reads='input' is for an mlp",
        )
    if top < 0:
        raise MediationError(f"top is {top}, but it is 0 or more")
    own: dict[str, tuple[int, ...]] = {f"feature {j}": (int(j),) for j in features or ()}
    own |= {group: tuple(map(int, members)) for group, members in (groups or {}).items()}
    if clash := own.keys() & {ALL, ERROR, SITE}:
        raise MediationError(
            f"groups names {min(clash)!r}, which is one of the wholes", hint="name it otherwise"
        )
    if empty := [group for group, members in own.items() if not members]:
        raise MediationError(f"the group {empty[0]!r} holds no features")
    with open_runner(
        model, pairs, tokens=tokens, directions=directions, outcome=outcome, max_extra_bytes=max_extra_bytes
    ) as runner:
        runtime = runner.runtime
        check_sites([at], runtime.n_layers, runtime.width)
        split = Features(at, encode, decode, reads, name)
        largest = _largest(runtime, pairs, split, 0 if features is not None else top)
        split.parts = {f"feature {j}": (j,) for j in largest} | own
        in_parts = replace(runner, split=split, rows=[(at,)] * (len(split.parts) + 3))
        found = run_pairs(
            runtime,
            pairs,
            partial(here, in_parts.run),
            in_parts.fitting,
            kept=in_parts.kept_bytes,
            progress=progress,
            on_pair=on_pair,
            done=done,
        )
        return Sweep(
            mediator="features",
            tokens=tokens,
            outcome=outcome,
            sets=dict.fromkeys((*split.parts, ALL, ERROR, SITE), (at,)),
            **found_of(runtime, found),
        )


class Features:
    """A site's value taken apart by an encoder, and the rows that set its parts; a `Split` of the runner."""

    def __init__(
        self, site: Site, encode: Code, decode: Code, reads: Literal["output", "input"], name: str
    ) -> None:
        self.site, self._encode, self._decode, self._named = site, encode, decode, name
        self._into = reads == "input"
        self.parts: dict[str, tuple[int, ...]] = {}
        self._count: int | None = None

    @property
    def name(self) -> str:
        """What the values depend on."""
        return repr((self._named, self._into, self.parts))

    @property
    def reads(self) -> tuple[Place, ...]:
        """Places that clean runs keep for it."""
        return (("into", self.site.layer),) if self._into else ()

    def of(self, world: World) -> tuple[torch.Tensor, torch.Tensor]:
        """Give what the site gave in a clean run, (window, width), and its features, (window, m)."""
        kind, layer, number = self.site
        x = world.layers[layer].z[:, number] if kind == "head" else world.outputs[kind, layer]
        return x, self.encode(world.outputs["into", layer] if self._into else x)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Features, checked."""
        f = self._encode(x)
        return _checked(f, "encode", (len(x), self._count or f.shape[-1]), x)

    def decode(self, f: torch.Tensor, width: int) -> torch.Tensor:
        """Decode, checked; some rows at a time."""
        return _cat(
            [_checked(self._decode(part), "decode", (len(part), width), f) for part in f.split(_AT_ONCE)]
        )

    def changed(
        self, x: torch.Tensor, f: torch.Tensor, other: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """Set each part to what it is in the other run: the site's values, (parts + 3, window, width)."""
        window, width = x.shape
        y, g = other
        mixed = f.repeat(len(self.parts), 1, 1)
        for row, members in enumerate(self.parts.values()):
            if not 0 <= min(members) <= max(members) < f.shape[-1]:
                raise MediationError(
                    f"feature {max(members, key=abs)} is out of range: the encoder has {f.shape[-1]}"
                )
            mixed[row][:, list(members)] = g[:, list(members)]
        # As differences of decoded features: what is not moved is not rounded.
        clean, moved = self.decode(f, width), self.decode(g, width)
        out = [x + (part - clean) for part in self.decode(mixed.flatten(0, 1), width).view(-1, window, width)]
        every = x + (moved - clean)
        return _stack([*out, every, y - (moved - clean), y])

    def job(self, base: World, source: World, item: str) -> Job:
        """Give the patched runs of one clean run, with a row for every part and whole."""
        from whyprompt.mediation.engine.actions import set_output
        from whyprompt.mediation.engine.patching import Job

        kind, layer, number = self.site
        values = self.changed(*self.of(base), self.of(source))
        rows = [(self.site,)] * len(values)
        if kind == "head" and number is not None:
            return Job(base, rows, [{(layer, number): z} for z in values], item)
        return Job(base, rows, set_output(source.layers), item, [{(kind, layer): x} for x in values])


def _cat(parts: list[torch.Tensor]) -> torch.Tensor:
    import torch

    return torch.cat(parts)


def _stack(parts: list[torch.Tensor]) -> torch.Tensor:
    import torch

    return torch.stack(parts)


def _checked(y: Any, name: str, shape: tuple[int, int], like: torch.Tensor) -> torch.Tensor:  # noqa: ANN401  # a user's
    """Refuse what an encoder gives that is no tensor of the right shape, or not finite."""
    import torch

    if not isinstance(y, torch.Tensor) or tuple(y.shape) != shape:
        gave = tuple(y.shape) if hasattr(y, "shape") else type(y).__name__
        raise MediationError(
            f"{name} gave {gave}, not a tensor of shape {shape}",
            hint="encode: activations (n, width) to features (n, m); decode: features back to (n, width)",
        )
    if not torch.isfinite(y).all():
        raise MediationError(f"{name} gave numbers that are not finite")
    return y.detach().to(like)


def _largest(runtime: ModelRuntime, pairs: Sequence[PromptPair], split: Features, top: int) -> list[int]:
    """Features that differ most between the prompts, the mean over tokens and then over items."""
    if not top:
        return []
    total: Any = 0.0
    place = () if split.site.kind == "head" else ((split.site.kind, split.site.layer),)
    for pack in in_packs(runtime, pairs, kept=lambda _: 0):
        worlds = runtime.clean_many(
            [(ids, pair.answer_ids) for pair in pack for ids in (pair.ids0, pair.ids1)],
            items=[pair.item_id for pair in pack for _ in range(2)],
            patched=[False] * (2 * len(pack)),
            places=(*place, *split.reads),
        )
        for k in range(0, len(worlds), 2):
            (_, before), (_, after) = (split.of(world) for world in worlds[k : k + 2])
            total = total + (after - before).abs().double().mean(0)
    size = total.cpu()
    order: list[int] = size.argsort(descending=True, stable=True)[:top].tolist()
    return [j for j in order if float(size[j]) > 0]
