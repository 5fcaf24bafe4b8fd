"""Log-probabilities of answers, for thousands of prompts.

Prompts are computed as packed tries (:mod:`whyprompt.trials.models.packing`): every distinct prefix once, no
padding, logits only where an answer token is predicted.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from whyprompt.errors import WhypromptError
from whyprompt.trials.models.local import Encoded
from whyprompt.trials.models.packing import Pack, plan_packs

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from numpy.typing import NDArray

    from whyprompt.trials.models.local import LocalModel

# Products of fewer rows go by a routine of their own, which rounds otherwise.
LEAST_ROWS = 4

Requests = Sequence[Encoded] | Mapping[int, Encoded]


@dataclass(frozen=True, slots=True)
class TokenScores:
    """What was found at the scored tokens.

    Parameters
    ----------
    log_probs : ndarray of float64, shape (n_scored,)
        Natural logarithms, each given all tokens before it.
    greedy : bool
        Whether every scored token is the most probable one.
    next_token : int or None
        The most probable token after the last, where it was asked for.
    """

    log_probs: NDArray[np.float64]
    greedy: bool
    next_token: int | None

    @property
    def total(self) -> float:
        """Log-probability of the scored tokens together."""
        return float(self.log_probs.sum())


class RootCache:
    """Keys and values of the last root computed: packs of a group come one after the other."""

    def __init__(self) -> None:
        self._root: tuple[int, ...] = ()
        self._layers: list[tuple[torch.Tensor, torch.Tensor]] = []

    def fresh(self, lm: LocalModel, root: tuple[int, ...], rows: int = 1) -> Any:  # noqa: ANN401 - transformers' Cache
        """Give a cache that holds the root's keys and values and may be appended to."""
        import torch
        from transformers import DynamicCache

        if root and root != self._root:
            cache = DynamicCache()
            base = lm.model.base_model
            base(
                input_ids=torch.tensor([root], device=lm.device),
                use_cache=True,
                **{cache_argument(base): cache},
            )
            self._layers = [(layer.keys, layer.values) for layer in cache.layers]  # type: ignore[union-attr, misc]
            self._root = root
        cache = DynamicCache()
        if root:
            for i, (keys, values) in enumerate(self._layers):
                cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), i)
        return cache


def cache_argument(model: Any) -> str:  # noqa: ANN401 - a transformers model
    """Give the name under which a model's ``forward`` takes its cache: newer transformers renamed it."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def plan_scoring(lm: LocalModel, requests: Sequence[Encoded], *, budget: int | None = None) -> list[Pack]:
    """Plan which requests are computed together, by default in the model's own budget of tokens.

    The plan depends on the requests alone.
    """
    return plan_packs(
        [r.fed for r in requests], limits=[len(r.ids) - 1 for r in requests], budget=budget or lm.token_budget
    )


def score(lm: LocalModel, requests: Sequence[Encoded]) -> list[TokenScores]:
    """Score any number of requests.

    Parameters
    ----------
    lm : LocalModel
    requests : sequence of Encoded

    Returns
    -------
    list of TokenScores
        In the order of the requests.

    Raises
    ------
    WhypromptError
        If the model gives a log-probability that is not a number.
    """
    cache = RootCache()
    found = dict(s for pack in plan_scoring(lm, requests) for s in score_pack(lm, requests, pack, cache))
    return [found[i] for i in range(len(requests))]


def score_pack(
    lm: LocalModel, requests: Requests, pack: Pack, cache: RootCache
) -> Iterator[tuple[int, TokenScores]]:
    """Score the members of one pack: their index into ``requests``, and what was found.

    ``requests`` are those the plan was made of, by the indices that the pack's members are; the cache is kept
    between the packs of a run.
    """
    import torch

    from whyprompt._lean.layers import lean_layers

    with torch.inference_mode(), lean_layers(lm.model):
        wanted, logits = _packed(lm, requests, pack, cache) if lm.packs else _padded(lm, requests, pack)
        log_norm = torch.logsumexp(logits, dim=-1)
        best = logits.argmax(dim=-1).cpu().numpy()
        # Several members may want the same token of the trie: its row stands in `logits` once. A look-ahead
        # adds a last wanted row, which has no target.
        targets = [requests[i].answer_ids for i in pack.members]
        scored = [rows[: len(ids)] for rows, ids in zip(wanted, targets, strict=True)]
        row = torch.from_numpy(np.concatenate(scored)).to(lm.device)
        token = torch.tensor([t for ids in targets for t in ids], device=lm.device)
        found = (logits[row, token] - log_norm[row]).double().cpu().numpy()
    at = 0
    for i, rows, own in zip(pack.members, wanted, scored, strict=True):
        request = requests[i]
        log_probs = found[at : at + len(own)]
        at += len(own)
        if not np.all(np.isfinite(log_probs)):
            raise WhypromptError(
                f"the model {lm.name!r} gives a log-probability that is not finite", hint="try dtype float32"
            )
        yield (
            i,
            TokenScores(
                log_probs=log_probs,
                greedy=bool(np.array_equal(best[own], request.answer_ids)),
                next_token=int(best[rows[-1]]) if request.look_ahead else None,
            ),
        )


def logits_at(lm: LocalModel, rows: NDArray[np.int64], **inputs: Any) -> tuple[torch.Tensor, Any]:  # noqa: ANN401 - the model's own
    """Run the model, with its own head on the wanted positions only: their logits, and what it gave."""
    import torch

    keep = torch.from_numpy(rows).to(lm.device)
    if "logits_to_keep" in inspect.signature(lm.model.forward).parameters:
        output = lm.model(**inputs, logits_to_keep=keep)
        return _whole_precision(output.logits), output
    output = lm.model(**inputs)
    return _whole_precision(output.logits[:, keep]), output


def _whole_precision(logits: torch.Tensor) -> torch.Tensor:
    """Give half precision as float32, and leave float64 what it is."""
    import torch

    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def wanted_nodes(requests: Requests, pack: Pack) -> list[NDArray[np.int64]]:
    """Give the tokens of the trie after which something is scored, for each member."""
    return [pack.paths[m][len(requests[i].ids) - 1 - len(pack.root) :] for m, i in enumerate(pack.members)]


def _packed(
    lm: LocalModel, requests: Requests, pack: Pack, cache: RootCache
) -> tuple[list[NDArray[np.int64]], torch.Tensor]:
    """Run the trie as one row whose mask lets a token see the root and its ancestors.

    Of a part of a pack its own tokens are computed, and their attention in the layout of the whole: what they
    give is what the whole gives, digit for digit, where a product's rows do not depend on how many there are.
    """
    import torch

    from whyprompt.trials.models.blocks import in_blocks, in_layout

    nodes = wanted_nodes(requests, pack)
    rows = np.unique(np.concatenate(nodes))
    n, root = len(pack.tokens), len(pack.root)
    at = pack.computed
    if at is None:
        at, within = np.arange(n), in_blocks
    else:
        # Products of fewer rows go by another routine.
        rows = np.union1d(rows, np.setdiff1d(at, rows)[: max(0, LEAST_ROWS - len(rows))])
        within = partial(in_layout, at=at)
    mask = torch.zeros(1, 1, n, root + n, dtype=lm.dtype)
    mask[0, 0, :, root:].masked_fill_(~torch.from_numpy(pack.ancestors()), torch.finfo(lm.dtype).min)
    mask = mask.to(lm.device)
    held = cache.fresh(lm, pack.root)
    with within(lm.model, mask) if lm.blocks else nullcontext():
        logits, _ = logits_at(
            lm,
            np.searchsorted(at, rows),
            input_ids=torch.from_numpy(pack.tokens[at])[None].to(lm.device),
            position_ids=torch.from_numpy(pack.depth[at])[None].to(lm.device),
            attention_mask=mask,
            use_cache=True,
            **{cache_argument(lm.model): held},
        )
    return [np.searchsorted(rows, path) for path in nodes], logits[0]


def _padded(lm: LocalModel, requests: Requests, pack: Pack) -> tuple[list[NDArray[np.int64]], torch.Tensor]:
    """Run the members in full, padded at the right, a few at a time."""
    import torch

    waiting = sorted(pack.members, key=lambda i: len(requests[i].fed))
    wanted: dict[int, NDArray[np.int64]] = {}
    found: list[torch.Tensor] = []
    kept = 0
    while waiting:
        n = 1
        while n < len(waiting) and len(requests[waiting[n]].fed) * (n + 1) <= 2 * lm.token_budget:
            n += 1
        batch, waiting = waiting[:n], waiting[n:]
        fed = [requests[i].fed for i in batch]
        spans = [np.arange(len(requests[i].ids) - 1, len(f)) for i, f in zip(batch, fed, strict=True)]
        rows = np.unique(np.concatenate(spans))
        ids, mask = padded(fed, lm.device)
        logits, _ = logits_at(lm, rows, input_ids=ids, attention_mask=mask, use_cache=False)
        for row, (i, span) in enumerate(zip(batch, spans, strict=True)):
            found.append(logits[row, torch.from_numpy(np.searchsorted(rows, span)).to(lm.device)])
            wanted[i] = np.arange(kept, kept + len(span))
            kept += len(span)
    return [wanted[i] for i in pack.members], torch.cat(found)


def padded(sequences: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad sequences at the right: their ids, and 1 where a token is the sequence's own."""
    import torch

    width = max(map(len, sequences))
    ids = [[*s, *([s[-1]] * (width - len(s)))] for s in sequences]
    mask = [[1] * len(s) + [0] * (width - len(s)) for s in sequences]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def probe_packing(lm: LocalModel) -> tuple[LocalModel, str]:
    """Find out how a model computes packed tries exactly, if it does, by comparing with plain runs.

    Gives the model with what it can do, and the largest difference, or why it cannot pack. Raises
    `WhypromptError` if even the padded runs do not give the model's own log-probabilities.
    """
    import torch

    from whyprompt.trials.models.blocks import block_queries

    vocabulary = int(lm.model.get_input_embeddings().weight.shape[0])
    rng = np.random.default_rng(0)
    root, stem = rng.integers(0, vocabulary, 9).tolist(), rng.integers(0, vocabulary, 4).tolist()
    tails = [rng.integers(0, vocabulary, k).tolist() for k in (3, 5, 4)]
    requests = [Encoded((*root, *stem, t[0]), tuple(t[1:])) for t in tails[:2]]
    requests.append(Encoded((*root, *tails[2][:2]), tuple(tails[2][2:])))
    with torch.inference_mode():
        plain = []
        for r in requests:
            whole = (*r.ids, *r.answer_ids)
            logits = lm.model(input_ids=torch.tensor([whole], device=lm.device)).logits[0].float()
            if len(logits) != len(whole):
                raise WhypromptError(
                    f"the model {lm.name!r} gives {len(logits)} rows of logits for {len(whole)} "
                    "tokens: it puts virtual tokens before the prompt, which cannot be scored",
                    hint="write the tuned prompt as text, or use the model without it",
                )
            log_probs = torch.log_softmax(logits, -1)
            plain.append(sum(log_probs[p - 1, whole[p]].item() for p in range(len(r.ids), len(whole))))
    tolerance = 1e-3 if lm.dtype in {torch.float32, torch.float64} else 0.25
    window = getattr(lm.model.config, "sliding_window", None)
    if isinstance(window, int) and 0 < window < lm.codec.context:
        why = f"layers look back {window} tokens only"
    else:
        for blocks in (True, False):
            able = replace(lm, packs=True, blocks=blocks)
            try:
                with block_queries(4):
                    found = [s.total for s in score(able, requests)]
            except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError) as error:
                why = f"{type(error).__name__}: {error}".splitlines()[0]
            else:
                worst = float(np.max(np.abs(np.subtract(found, plain))))
                if worst <= tolerance:
                    return able, f"packed scoring: differs from plain runs by at most {worst:.1e}"
                why = f"differs from plain runs by {worst:.1e}"
    able = replace(lm, packs=False)
    found = [s.total for s in score(able, requests)]
    worst = float(np.max(np.abs(np.subtract(found, plain))))
    if worst > tolerance:
        raise WhypromptError(
            f"the model {lm.name!r} does not give its own log-probabilities in a padded batch "
            f"(they differ by {worst:.1e})"
        )
    return able, f"padded scoring, prefixes computed anew: {why}"
