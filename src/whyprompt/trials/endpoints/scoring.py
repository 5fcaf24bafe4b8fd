"""log P(given answer) over an interface that was made to generate: four ways, each proved before it is used.

========================  ==============================================================================
``echo``                  the prompt with its answer comes back with log-probabilities (OpenAI's older form)
``prompt_logprobs``       the same as a list of its own, by token ids (vLLM)
``token_grammar``         a grammar that allows one sequence of token ids (llama.cpp); what is reported is
                          the plain distribution, untouched by the grammar, temperature or top-k
``top_logprobs``          an answer of one token among the most probable ones of a chat
========================  ==============================================================================

Servers answer 200 and leave out what they do not know: a way counts as there once the tokens that come back
are those of the answer, their number is right, and on the probe's own answer their sum agrees with one token
after the other, each among the most probable ones of an ordinary completion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from whyprompt.trials.endpoints.asking import Asking, Prompted, Purpose
from whyprompt.trials.endpoints.refusals import FailedError
from whyprompt.trials.models.scoring import TokenScores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from whyprompt.trials.endpoints.wire import Answer, Reply, Request, Token

WAYS = ("echo", "prompt_logprobs", "token_grammar", "top_logprobs")
TOP = 20


class Given(NamedTuple):
    """A prompt and an answer to be scored: as text, and as tokens where the server tells them."""

    text: str
    answer: str
    ids: tuple[int, ...] = ()
    answer_ids: tuple[int, ...] = ()
    most_tokens: int = 0
    messages: tuple[dict[str, str], ...] = ()


class Found(NamedTuple):
    """What was found at an answer's tokens; `ends` says whether greedy decoding would end it there."""

    scores: TokenScores
    ends: bool | None


class NotScoredError(FailedError):
    """A reply that does not hold the log-probabilities of the answer it was asked for."""

    def __init__(self, why: str) -> None:
        super().__init__("not scored", f"the answer was not scored: {why}")


def ask_score(asking: Asking, way: str, given: Given, purpose: Purpose, *, ahead: bool) -> Request:
    """Ask for the log-probabilities of an answer; `ahead` also for the greedy token after it."""
    k = len(given.answer_ids)
    if way == "token_grammar":
        # What is forced after the answer does not matter: the most probable token there is reported too.
        forced = [*given.answer_ids, *([given.answer_ids[0]] if ahead else [])]
        grammar = "root ::= " + " ".join(f"<[{i}]>" for i in forced)
        fields: dict[str, Any] = {"prompt": list(given.ids)}
        further: dict[str, Any] = {"grammar": grammar, "logprobs": 1}
        return asking.scored(Prompted(fields, len(given.ids)), purpose, most=len(forced), further=further)
    if way == "prompt_logprobs":
        fields = {"prompt": [*given.ids, *given.answer_ids]}
        return asking.scored(
            Prompted(fields, len(given.ids) + k), purpose, most=1, further={"prompt_logprobs": 1}
        )
    if way == "echo":
        fields = {"prompt": given.text + given.answer}
        return asking.scored(
            Prompted(fields, given.most_tokens), purpose, most=1, further={"echo": True, "logprobs": 1}
        )
    prompt = Prompted({"messages": list(given.messages)}, given.most_tokens)
    return asking.completion(prompt, purpose, most=1, temperature=0.0, seed=0, top=TOP)


def read_score(way: str, given: Given, reply: Reply, *, ahead: bool) -> Found:
    """Read an answer's log-probabilities out of a reply.

    Raises
    ------
    NotScoredError
        If the tokens are not the answer's, or one of them has no log-probability.
    """
    read: dict[str, Callable[[Given, Reply, bool], Found]] = {
        "token_grammar": _by_grammar,
        "prompt_logprobs": _by_prompt,
        "echo": _by_echo,
        "top_logprobs": _by_top,
    }
    found = read[way](given, reply, ahead)
    if not np.isfinite(found.scores.log_probs).all():
        raise NotScoredError("a token has no log-probability")
    return found


def _ends(text: str) -> bool:
    return not text[:1].isalnum()


def _scores(log_probs: Sequence[float], *, greedy: bool) -> TokenScores:
    return TokenScores(np.asarray(log_probs, dtype=np.float64), greedy, None)


def _is_first(token: Token) -> bool:
    """Whether a token is the most probable one in its place."""
    if not token.top:
        return False
    best = max(token.top, key=lambda t: t[2])
    return (best[0] == token.id if token.id is not None else best[1] == token.text) or (
        token.log_prob >= best[2]
    )


def _by_grammar(given: Given, reply: Reply, ahead: bool) -> Found:  # noqa: FBT001 - one of four alike
    answer: Answer = reply.answer
    k = len(given.answer_ids)
    if len(answer.tokens) != k + ahead:
        raise NotScoredError(f"{len(answer.tokens)} tokens came back for {k + ahead}")
    tokens = answer.tokens[:k]
    if tuple(t.id for t in tokens) != given.answer_ids:
        raise NotScoredError("the tokens that came back are not the answer's")
    scores = _scores([t.log_prob for t in tokens], greedy=all(map(_is_first, tokens)))
    after = answer.tokens[k].top if ahead else ()
    return Found(scores, _ends(max(after, key=lambda t: t[2])[1]) if after else None)


def _by_prompt(given: Given, reply: Reply, ahead: bool) -> Found:  # noqa: FBT001 - one of four alike
    choices = reply.content.get("choices")
    rows = choices[0].get("prompt_logprobs") if isinstance(choices, list) and choices else None
    n, k = len(given.ids), len(given.answer_ids)
    if not isinstance(rows, list) or len(rows) != n + k or not k:
        raise NotScoredError("there is no prompt_logprobs of the prompt's length")
    log_probs, greedy = [], True
    for row, token in zip(rows[n:], given.answer_ids, strict=True):
        own = row.get(str(token)) if isinstance(row, dict) else None
        if not isinstance(own, dict) or not isinstance(own.get("logprob"), int | float):
            raise NotScoredError("the tokens that came back are not the answer's")
        log_probs.append(float(own["logprob"]))
        greedy = greedy and own.get("rank") == 1
    return Found(_scores(log_probs, greedy=greedy), _ends(reply.answer.text) if ahead else None)


def _by_echo(given: Given, reply: Reply, ahead: bool) -> Found:  # noqa: FBT001 - one of four alike
    tokens = reply.answer.tokens
    start, end = _place(tokens, given.text), _place(tokens, given.text + given.answer)
    if start is None or end is None or start == end:
        raise NotScoredError("the prompt did not come back, or its answer is not tokens of its own")
    own = tokens[start:end]
    after = tokens[end].text if len(tokens) > end else ""
    scores = _scores([t.log_prob for t in own], greedy=all(map(_is_first, own)))
    return Found(scores, _ends(after) if ahead else None)


def _place(tokens: Sequence[Token], text: str) -> int | None:
    """Give how many tokens a text is, a special one at its beginning aside; None where it ends inside one."""
    for first in (0, 1):
        whole = ""
        for n, token in enumerate(tokens[first:], start=first + 1):
            whole += token.text
            if whole == text:
                return n
            if not text.startswith(whole):
                break
    return None


def _by_top(given: Given, reply: Reply, ahead: bool) -> Found:  # noqa: ARG001, FBT001 - one of four alike
    tokens = reply.answer.tokens
    if not tokens or not tokens[0].top:
        raise NotScoredError("no most probable tokens came back")
    wanted = given.answer.strip()
    ranked = sorted(tokens[0].top, key=lambda t: -t[2])
    place = next((n for n, t in enumerate(ranked) if t[1].strip() == wanted), None)
    if place is None:
        raise NotScoredError(f"the answer is not one of the {len(ranked)} most probable tokens")
    return Found(_scores([ranked[place][2]], greedy=place == 0), None)
