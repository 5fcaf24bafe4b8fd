"""What an endpoint can do, shown by asking it, before anything else is paid for.

Servers answer 200 and ignore what they do not know: parameters of sampling, log-probabilities, even the
model's name. Every ability that a study relies on is tried on a few tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from whyprompt._words import counted
from whyprompt.errors import ModelError
from whyprompt.trials.endpoints.asking import Asking, Purpose
from whyprompt.trials.endpoints.offers import AROUND, TEXT, Offers, offered, prompted, row, tokenized
from whyprompt.trials.endpoints.proofs import prove_scoring
from whyprompt.trials.endpoints.refusals import FailedError

if TYPE_CHECKING:
    from whyprompt.results import Check
    from whyprompt.trials.endpoints.client import Client
    from whyprompt.trials.endpoints.wire import Answer, Reply

# What llama.cpp does to the distribution unless told otherwise.
_NEUTRAL = {"top_k": 0, "min_p": 0.0, "typical_p": 1.0, "repeat_penalty": 1.0}


@dataclass(frozen=True, kw_only=True)
class Abilities:
    """What an endpoint was seen to do.

    Parameters
    ----------
    asking : Asking
        How it is spoken to.
    offers : Offers
    model, fingerprint : str or None
        As its replies report them.
    scoring : str or None
        The way in which given answers are scored exactly; None for none.
    usage, sampling, seed : bool
        Whether tokens are counted right, temperature is honoured, and a seed repeats its text.
    checks : tuple of Check
        One row of the probe's table each.
    """

    asking: Asking
    offers: Offers
    model: str | None
    fingerprint: str | None
    scoring: str | None
    usage: bool
    sampling: bool
    seed: bool
    checks: tuple[Check, ...]


async def probe(client: Client, *, scoring: bool = True) -> Abilities:
    """Try what an endpoint can do.

    Parameters
    ----------
    client : Client
    scoring : bool
        Whether the ways to score a given answer are tried too.

    Raises
    ------
    ModelError
        If it cannot be used as the study asks: it is not there, answers as another model, refuses a parameter
        that is always sent.
    """
    settings = client.settings
    offers = await offered(client)
    api = settings.api
    if api == "auto":
        api = "completions" if offers.template and offers.tokenize == "content" else "chat"
    asking = Asking(settings, api, neutral=_NEUTRAL if offers.llama else {})
    asking, first = await _first(client, asking, offers)
    said = first.answer
    checks = [_name(client, said), *_told(offers, api)]
    usage = await _usage(client, offers, asking, first)
    checks.append(usage)
    if offers.tokenize:
        client.tokenize = partial(tokenized, client, offers, special=False)
    client.purse.trusts_usage = usage.verdict == "passes"
    checks.append(_logprobs(said))
    sampled, seeded = await _sampling(client, asking, offers)
    checks += [sampled, seeded]
    way: str | None = None
    if scoring and settings.scoring != "none":
        way, rows = await prove_scoring(client, asking, offers)
        checks += rows
    return Abilities(
        asking=asking,
        offers=offers,
        model=said.model,
        fingerprint=said.fingerprint,
        scoring=way,
        usage=usage.verdict == "passes",
        sampling=sampled.verdict == "passes",
        seed=seeded.verdict == "passes",
        checks=tuple(checks),
    )


async def _first(client: Client, asking: Asking, offers: Offers) -> tuple[Asking, Reply]:
    """Make the first completion, without what this interface refuses by name."""
    prompt = await prompted(client, asking, offers)
    top = 5
    for _ in range(3):
        request = asking.completion(
            prompt, Purpose("", "", 0, "probe"), most=4, temperature=0.0, seed=1, top=top
        )
        try:
            return asking, await client.ask(request)
        except FailedError as error:
            text = error.message.lower()
            if "max_completion_tokens" in text and asking.limit == "max_tokens":
                asking = asking._replace(limit="max_completion_tokens")
            elif "logprob" in text and top:
                top = 0
            else:
                refused = next((p for p in ("temperature", "top_p", "seed") if p in text), None)
                hint = {
                    "seed": "sampling: {seed: none} leaves it out",
                    "temperature": "this model samples in its own way, which no study can set",
                }.get(refused or "", "check model.name, model.api and model.extra")
                raise ModelError(
                    f"the endpoint refuses a request of the study: {error.message}", hint=hint
                ) from None
    raise ModelError("the endpoint refuses every form of the request")


def _name(client: Client, said: Answer) -> Check:
    asked, reported = client.settings.name, said.model
    if reported is None:
        return row("model", None, f"asked for {asked!r}; replies do not say which model answers")
    short = reported.rsplit("/", 1)[-1]
    same = {asked.lower(), asked.rsplit("/", 1)[-1].lower()}
    if not {reported.lower(), short.lower(), short.lower().removesuffix(".gguf")} & same:
        if not short.lower().startswith(asked.rsplit("/", 1)[-1].lower()):
            raise ModelError(
                f"the endpoint was asked for the model {asked!r} and answers as {reported!r}",
                hint="name the model that it has: model.name",
            )
        return row(
            "model", None, f"{asked!r} is answered by {reported!r}: name that one, since an alias may move"
        )
    version = "" if said.fingerprint is None else f", fingerprint {said.fingerprint!r}"
    return row("model", True, f"replies say {short!r}{version}")


def _told(offers: Offers, api: str) -> list[Check]:
    context = "not known" if offers.context is None else counted(offers.context, "token")
    tokens = "exact, by /tokenize" if offers.tokenize else "an estimate: the server does not tokenise"
    return [
        row("interface", True, api + (", with the server's chat template" if offers.template else "")),
        row("context", None if offers.context is None else True, context),
        row("tokens", True if offers.tokenize else None, tokens),
    ]


async def _usage(client: Client, offers: Offers, asking: Asking, first: Reply) -> Check:
    said = first.answer
    if said.prompt_tokens is None or said.completion_tokens is None:
        return row("usage", False, "not reported: every reply is charged at its most")
    most = 4
    wrong = []
    if not 0 < said.completion_tokens <= most:
        wrong.append(f"{said.completion_tokens} tokens of a completion that may have {most}")
    if said.tokens and abs(len(said.tokens) - said.completion_tokens) > 1:
        wrong.append(f"{said.completion_tokens} tokens where {len(said.tokens)} came back")
    if asking.api == "completions" and offers.tokenize:
        n = len(await tokenized(client, offers, TEXT, special=True))
        if abs(said.prompt_tokens - n) > 1:
            wrong.append(f"{said.prompt_tokens} tokens of a prompt of {n}")
    elif not 0 < said.prompt_tokens <= len(TEXT.encode()) + AROUND:
        wrong.append(f"{said.prompt_tokens} tokens of a prompt of {len(TEXT)} characters")
    if wrong:
        return row("usage", False, f"wrong ({'; '.join(wrong)}): every reply is charged at its most")
    return row("usage", True, f"right: {said.prompt_tokens} and {counted(said.completion_tokens, 'token')}")


def _logprobs(said: Answer) -> Check:
    if not said.tokens:
        return row("log-probabilities", None, "of sampled tokens: none")
    n = max((len(t.top) for t in said.tokens), default=0)
    return row("log-probabilities", True, f"of sampled tokens, with the {n} most probable in each place")


async def _sampling(client: Client, asking: Asking, offers: Offers) -> tuple[Check, Check]:
    """See whether temperature is honoured, by texts that must be equal and texts that must not."""
    prompt = await prompted(client, asking, offers, "Write a few random words:")

    # Numbered: requests that differ in a seed that is not sent would be one, whose reply is stored.
    numbers = count()

    async def text(temperature: float, seed: int) -> str:
        purpose = Purpose("", "", next(numbers), "probe")
        request = asking.completion(prompt, purpose, most=8, temperature=temperature, seed=seed)
        return (await client.ask(request)).answer.text

    cold = [await text(0.0, 1), await text(0.0, 2)]
    warm = [await text(1.9, seed) for seed in (1, 2, 3)]
    again = await text(1.9, 1)
    if cold[0] != cold[1]:
        sampled = row("sampling", False, "temperature 0 gives different texts: it is not honoured")
    elif len({*warm, cold[0]}) == 1:
        sampled = row("sampling", False, "temperature 1.9 gives the text of 0: it is not honoured")
    else:
        sampled = row("sampling", True, "temperature is honoured: 0 repeats its text, 1.9 does not")
    if client.settings.sampling.seed == "none":
        return sampled, row("seed", None, "none is sent")
    same = again == warm[0]
    return sampled, row(
        "seed", True if same else None, f"the same one {'repeats' if same else 'does not repeat'} its text"
    )


def doubts(abilities: Abilities) -> list[str]:
    """Say what the probe leaves in doubt, one line each."""
    return [
        f"{c.name}: {c.sentence}"
        for c in abilities.checks
        if c.verdict != "passes" and "scoring" not in c.name
    ]
