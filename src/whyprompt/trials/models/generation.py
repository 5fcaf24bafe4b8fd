"""Completions: prompts are written side by side, one leaves when it is done, and another takes its place."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

from whyprompt.trials.models.packing import common_prefix
from whyprompt.trials.models.scoring import RootCache, cache_argument, logits_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from whyprompt.trials.models.local import LocalModel, PromptCodec
    from whyprompt.trials.models.rows import Rows

# So many texts are written side by side: then a processor, or a GPU, computes and no longer waits for memory.
_SIDE_BY_SIDE = {"cpu": 16}
_ON_A_GPU = 64
# A product of fewer rows goes by another routine, which rounds otherwise: fewer texts are filled up to these.
_LEAST = 4


class Completion(NamedTuple):
    """What a model wrote after a prompt."""

    text: str
    tokens: int
    finish: Literal["stop", "length"]
    """Whether it came to its end, or was cut off at the most tokens that it might have."""


@dataclass(kw_only=True)
class _Writing:
    """A text that is being written."""

    number: int
    temperature: float
    draw: torch.Generator
    length: int  # of the prompt and what is written, the last token aside, which is not read yet
    written: list[int] = field(default_factory=list)
    stopped: bool = False


def complete(lm: LocalModel, prompts: Sequence[Sequence[int]], **settings: Any) -> list[Completion]:  # noqa: ANN401 - as below
    """Continue prompts, all of them.

    Parameters
    ----------
    lm, prompts, **settings
        As for :func:`completions`.

    Returns
    -------
    list of Completion
        In the order of the prompts.
    """
    found = dict(completions(lm, prompts, **settings))
    return [found[n] for n in range(len(prompts))]


def completions(
    lm: LocalModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop: Sequence[str] = (),
    temperatures: Sequence[float] | None = None,
    seeds: Sequence[int] | None = None,
    root: Sequence[int] | None = None,
) -> Iterator[tuple[int, Completion]]:
    """Continue prompts until a special token, a stop string, or ``max_new_tokens``; each when it is done.

    Parameters
    ----------
    lm : LocalModel
    prompts : sequence of token ids
        Any number.
    max_new_tokens : int
    stop : sequence of str
        Cut off where the first of them appears.
    temperatures : sequence of float, optional
        One a prompt; 0, the default, is greedy.
    seeds : sequence of int, optional
        One a prompt: what it draws does not depend on its neighbours. 0 by default.
    root : token ids, optional
        A beginning to compute once, by default what these prompts share. Where it is always the same, what a
        prompt computes does not depend on which others are asked for: a prompt that begins otherwise is
        computed whole.

    Yields
    ------
    (int, Completion)
        The prompt's place, and what the model wrote after it, without what stopped it.
    """
    import torch

    from whyprompt._lean.layers import lean_layers

    heats = [0.0] * len(prompts) if temperatures is None else temperatures
    starts = [0] * len(prompts) if seeds is None else seeds
    texts = [
        _Writing(
            number=n,
            temperature=heats[n],
            draw=torch.Generator().manual_seed(starts[n]),
            length=len(prompt),
        )
        for n, prompt in enumerate(prompts)
    ]
    if root is None:
        root = _shared(prompts)
    # The modes are those of each step, not of whoever reads what is yielded between them.
    work = (
        _side_by_side(lm, prompts, texts, max_new_tokens, stop, tuple(root))
        if lm.packs and _in_rows_is_exact(lm)
        else _one_by_one(lm, prompts, texts, max_new_tokens, stop)
    )
    while True:
        with torch.inference_mode(), lean_layers(lm.model):
            done = next((texts for texts in work if texts), None)
        if done is None:
            return
        for text in done:
            yield text.number, _completion(lm, text, stop)


def _shared(prompts: Sequence[Sequence[int]]) -> Sequence[int]:
    if len(prompts) < 2:
        return ()
    length = min(len(p) - 1 for p in prompts)
    for one, other in pairwise(prompts):
        length = min(length, common_prefix(one, other))
    return prompts[0][:length]


def _completion(lm: LocalModel, text: _Writing, stop: Sequence[str]) -> Completion:
    cut = text_of(lm.codec, text.written, stop)
    return Completion(cut, len(text.written), "stop" if text.stopped else "length")


def text_of(codec: PromptCodec, ids: Sequence[int], stop: Sequence[str]) -> str:
    """Give what a model wrote as text, without what stopped it."""
    written = str(codec.tokenizer.decode([*ids]))
    ends = [at for s in stop if (at := written.find(s)) >= 0]
    return written[: min(ends)] if ends else written


def _side_by_side(
    lm: LocalModel,
    prompts: Sequence[Sequence[int]],
    texts: Sequence[_Writing],
    most: int,
    stop: Sequence[str],
    root: tuple[int, ...],
) -> Iterator[list[_Writing]]:
    """Write texts in rows: after every step those that are done leave, and waiting ones take their places."""
    import torch

    from whyprompt.trials.models.rows import Rows, in_rows, masked

    room = max(map(len, prompts), default=0) + most
    count = _SIDE_BY_SIDE.get(lm.device.type, _ON_A_GPU)
    # Where texts are long, fewer stand side by side: the rows are to fit the memory.
    count = max(_LEAST, min(count, len(prompts), 16 * lm.token_budget // max(room, 1)))
    rows: Rows | None = None
    named, roots = cache_argument(lm.model), RootCache()
    waiting, writing = list(texts)[::-1], list[_Writing]()
    while waiting or writing:
        done: list[_Writing] = []
        while waiting and len(writing) < count:
            text = waiting.pop()
            logits, cache = _begin(lm, prompts[text.number], root, roots, named)
            if rows is None:
                rows = Rows(len(cache.layers), count=count, room=room)
            if _take(lm, text, _greedy(logits[None])[0], logits, most, stop):
                done.append(text)
            else:
                rows.put(len(writing), cache)
                writing.append(text)
        if writing:
            assert rows is not None
            idle = max(0, _LEAST - len(writing))
            lengths = [*(t.length for t in writing), *[0] * idle]
            positions, mask = rows.step(lengths, lm)
            last = torch.tensor([[t.written[-1]] for t in writing] + [[0]] * idle, device=lm.device)
            with in_rows(lm.model), masked(mask):
                output = lm.model(
                    input_ids=last,
                    attention_mask=mask,
                    position_ids=positions,
                    use_cache=True,
                    **{named: rows},
                )
            logits = output.logits[: len(writing), -1].float()
            best = _greedy(logits)
            for n in reversed(range(len(writing))):
                text = writing[n]
                text.length += 1
                if _take(lm, text, best[n], logits[n], most, stop):
                    done.append(text)
                    # The last row takes its place.
                    moved = writing.pop()
                    if n < len(writing):
                        rows.move(len(writing), n, moved.length)
                        writing[n] = moved
        yield done


def _begin(
    lm: LocalModel, prompt: Sequence[int], root: tuple[int, ...], roots: RootCache, named: str
) -> tuple[torch.Tensor, Any]:
    """Read a prompt, its root from what was kept: the logits after it, and its keys and values."""
    import numpy as np
    import torch

    shared = root if len(prompt) > len(root) and tuple(prompt[: len(root)]) == root else ()
    tail = prompt[len(shared) :]
    cache = roots.fresh(lm, shared)
    logits, output = logits_at(
        lm,
        np.array([len(tail) - 1]),
        input_ids=torch.tensor([tail], device=lm.device),
        position_ids=torch.arange(len(shared), len(prompt), device=lm.device)[None],
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long, device=lm.device),
        use_cache=True,
        **{named: cache},
    )
    return logits[0, 0], output[named]


def _one_by_one(
    lm: LocalModel,
    prompts: Sequence[Sequence[int]],
    texts: Sequence[_Writing],
    most: int,
    stop: Sequence[str],
) -> Iterator[list[_Writing]]:
    """Write each text alone, with the model's own kind of cache: every architecture has one."""
    import torch

    named, takes = cache_argument(lm.model), inspect.signature(lm.model.forward).parameters
    for text in texts:
        ids, cache = list(prompts[text.number]), None
        while True:
            # No mask: one text alone has no padding, and a model that carries a state takes none behind it.
            given: dict[str, Any] = {}
            if "position_ids" in takes:
                places = torch.arange(text.length - len(ids), text.length, device=lm.device)
                given["position_ids"] = places[None]
            if named in takes:
                given |= {named: cache, "use_cache": True}
            output = lm.model(input_ids=torch.tensor([ids], device=lm.device), **given)
            logits = output.logits[0, -1].float()
            if _take(lm, text, _greedy(logits[None])[0], logits, most, stop):
                break
            text.length += 1
            if named in takes:
                ids, cache = text.written[-1:], output[named]
            else:
                # What the model carries along goes by another name: all of the text is read again.
                ids = [*ids, text.written[-1]]
        yield [text]


def _greedy(logits: torch.Tensor) -> list[int]:
    best: list[int] = logits.argmax(-1).tolist()
    return best


def _take(
    lm: LocalModel, text: _Writing, best: int, logits: torch.Tensor, most: int, stop: Sequence[str]
) -> bool:
    """Add a text's next token, and say whether that is the end of it."""
    token = best if text.temperature == 0 else _drawn(logits.cpu(), text.temperature, text.draw)
    if token in lm.codec.stop_ids:
        text.stopped = True
        return True
    text.written.append(token)
    if stop:
        so_far = lm.codec.tokenizer.decode(text.written)
        text.stopped = any(s in so_far for s in stop)
    return text.stopped or len(text.written) >= most


def _drawn(logits: torch.Tensor, temperature: float, draw: torch.Generator) -> int:
    import torch

    # Inverse transform with one uniform a token: the same draw on every device.
    cumulative = torch.softmax(logits.double() / temperature, dim=-1).cumsum(-1)
    uniform = torch.rand(1, generator=draw, dtype=torch.float64) * cumulative[-1]
    return min(int(torch.searchsorted(cumulative, uniform, right=True)), len(logits) - 1)


_exact: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def _in_rows_is_exact(lm: LocalModel) -> bool:
    """Whether a model in rows gives what plain runs of it give: tried once on some tokens."""
    if lm.model not in _exact:
        _exact[lm.model] = _tried(lm)
    return _exact[lm.model]


def _tried(lm: LocalModel) -> bool:
    import numpy as np
    import torch

    from whyprompt.trials.models.rows import Rows, in_rows, masked

    vocabulary = int(lm.model.get_input_embeddings().weight.shape[0])
    rng = np.random.default_rng(1)
    whole = [rng.integers(0, vocabulary, k).tolist() for k in (7, 4, 9, 5)]
    named, roots = cache_argument(lm.model), RootCache()
    try:
        with torch.inference_mode():
            rows: Rows | None = None
            for n, ids in enumerate(whole):
                _, cache = _begin(lm, ids[:-1], tuple(ids[:2]), roots, named)
                rows = rows or Rows(len(cache.layers), count=len(whole), room=40)
                rows.put(n, cache)
            assert rows is not None
            positions, mask = rows.step([len(ids) - 1 for ids in whole], lm)
            last = torch.tensor([ids[-1:] for ids in whole], device=lm.device)
            with in_rows(lm.model), masked(mask):
                output = lm.model(
                    input_ids=last,
                    attention_mask=mask,
                    position_ids=positions,
                    use_cache=True,
                    **{named: rows},
                )
            found = output.logits[:, -1].float()
            plain = torch.stack(
                [
                    lm.model(input_ids=torch.tensor([ids], device=lm.device)).logits[0, -1].float()
                    for ids in whole
                ]
            )
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError):
        return False
    tolerance = 1e-3 if lm.dtype in {torch.float32, torch.float64} else 0.25
    return bool((found - plain).abs().max() <= tolerance * max(1.0, float(plain.abs().max())))
