"""The ways of scoring a given answer, each held against one token after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whyprompt.trials.endpoints.asking import Asking, Prompted, Purpose
from whyprompt.trials.endpoints.offers import AROUND, TEXT, prompted, row, tokenized
from whyprompt.trials.endpoints.refusals import FailedError
from whyprompt.trials.endpoints.scoring import TOP, WAYS, Given, NotScoredError, ask_score, read_score

if TYPE_CHECKING:
    from collections.abc import Mapping

    from whyprompt.results import Check
    from whyprompt.trials.endpoints.client import Client
    from whyprompt.trials.endpoints.offers import Offers

_TOLERANCE = 1e-3


async def prove_scoring(client: Client, asking: Asking, offers: Offers) -> tuple[str | None, list[Check]]:
    """Try the ways of scoring a given answer, and take the first that is exact."""
    wanted = client.settings.scoring
    ways = [w for w in WAYS if wanted in {"auto", w} and (w == "top_logprobs") == (asking.api == "chat")]
    if not ways:
        why = f"{wanted} needs api: {'chat' if wanted == 'top_logprobs' else 'completions'}"
        return None, [row("log P(given answer)", False, why)]
    if asking.api == "chat":
        return await _chat_scoring(client, asking, offers)
    route = await _token_by_token(client, asking, offers)
    if route is None:
        why = "no top-N of completions to hold it against"
        return None, [row("log P(given answer)", None, why)]
    given, reference = route
    rows, taken = [], None
    for way in ways:
        if way != "echo" and not given.ids:
            rows.append(row(f"scoring: {way}", None, "needs token ids, and the server does not tokenise"))
            continue
        try:
            request = ask_score(asking, way, given, Purpose("", "", 0, f"probe {way}"), ahead=True)
            found = read_score(way, given, await client.ask(request), ahead=True)
        except NotScoredError as error:
            rows.append(row(f"scoring: {way}", None, f"ignored: {error.message.partition(': ')[2]}"))
            continue
        except FailedError as error:
            rows.append(row(f"scoring: {way}", None, error.message))
            continue
        gap = abs(found.scores.total - reference)
        if len(found.scores.log_probs) != 2 or not gap <= _TOLERANCE:
            rows.append(row(f"scoring: {way}", None, f"differs by {gap:.1e} from one token after the other"))
            continue
        rows.append(
            row(f"scoring: {way}", True, f"agrees with one token after the other to {gap:.0e} in one request")
        )
        taken = way
        break
    return taken, rows


async def _token_by_token(client: Client, asking: Asking, offers: Offers) -> tuple[Given, float] | None:
    """Score two improbable tokens by ordinary completions: each stands among the most probable ones."""
    ids = await tokenized(client, offers, TEXT, special=True) if offers.tokenize else ()
    text, answer, total = TEXT, "", 0.0
    chosen: tuple[int, ...] = ()
    for step in range(2):
        fields: Mapping[str, Any] = {"prompt": [*ids, *chosen] if ids else text + answer}
        prompt = Prompted(fields, len(ids) + 2 or len(text.encode()) + AROUND)
        request = asking.completion(
            prompt, Purpose("", "", 0, f"probe step {step}"), most=1, temperature=0.0, seed=1, top=TOP
        )
        try:
            tokens = (await client.ask(request)).answer.tokens
        except FailedError:
            return None
        ranked = sorted(tokens[0].top, key=lambda t: -t[2])[1:] if tokens else []
        for token, written, log_prob in ranked:
            # One that the tokenizer would write otherwise is no token of a given answer.
            if not written.strip():
                continue
            longer = chosen
            if ids:
                whole = await tokenized(client, offers, text + answer + written, special=True)
                if whole[:-1] != (*ids, *chosen) or token not in {None, whole[-1]}:
                    continue
                longer = (*chosen, whole[-1])
            chosen, answer, total = longer, answer + written, total + log_prob
            break
        else:
            return None
    return Given(text, answer, ids, chosen, len((text + answer).encode()) + AROUND), total


async def _chat_scoring(client: Client, asking: Asking, offers: Offers) -> tuple[str | None, list[Check]]:
    """See whether answers of one token can be read off a chat's most probable ones."""
    prompt = await prompted(client, asking, offers)
    messages = tuple(prompt.fields["messages"])
    given = Given(TEXT, "12", most_tokens=prompt.tokens, messages=messages)
    name = "scoring: top_logprobs"
    try:
        request = ask_score(asking, "top_logprobs", given, Purpose("", "", 0, "probe top"), ahead=False)
        top = (await client.ask(request)).answer.tokens
    except FailedError as error:
        return None, [row(name, None, error.message)]
    if not top or len(top[0].top) < 2:
        return None, [row(name, None, "ignored: no most probable tokens came back")]
    n = len(top[0].top)
    return "top_logprobs", [row(name, True, f"of answers of one token among the {n} most probable")]
