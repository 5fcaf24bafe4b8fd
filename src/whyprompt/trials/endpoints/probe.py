"""What an endpoint can do, shown by asking it, before anything else is paid for.

Servers answer 200 and ignore what they do not know: parameters of sampling, log-probabilities, even the
model's name. Every ability that a study relies on is tried on a few tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from whyprompt._words import counted
from whyprompt.errors import ModelError
from whyprompt.results import Check
from whyprompt.trials.endpoints.asking import Asking, Prompted, Purpose
from whyprompt.trials.endpoints.client import FailedError
from whyprompt.trials.endpoints.scoring import (
    TOP,
    WAYS,
    Given,
    NotScoredError,
    ask_score,
    read_score,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from whyprompt.results import Verdict
    from whyprompt.trials.endpoints.client import Client
    from whyprompt.trials.endpoints.wire import Answer, Reply

_TEXT = "Question: What is 7 plus 5?\nAnswer:"
_AROUND = 64
# What llama.cpp does to the distribution unless told otherwise.
_NEUTRAL = {"top_k": 0, "min_p": 0.0, "typical_p": 1.0, "repeat_penalty": 1.0}
_TOLERANCE = 1e-3


class Offers(NamedTuple):
    """What a server says of itself for nothing."""

    models: tuple[str, ...] = ()
    context: int | None = None
    llama: bool = False
    tokenize: str | None = None  # the field that its /tokenize reads
    template: bool = False
    name: str = ""

    def tokenize_body(self, text: str, *, special: bool) -> dict[str, Any]:
        """Give what its /tokenize is sent."""
        if self.tokenize == "content":
            return {"content": text, "add_special": special, "parse_special": True}
        return {"model": self.name, "prompt": text, "add_special_tokens": special}


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


async def offered(client: Client) -> Offers:
    """Ask what costs nothing.

    Raises
    ------
    ModelError
        If nothing answers, the key is refused, or what answers is no such interface.
    """
    status, listed = await client.look("models")
    if status in {401, 403}:
        raise ModelError(
            f"the endpoint refuses the key ({status})", hint="check model.key: {env: NAME} and its rights"
        )
    if status == 200 and not isinstance(listed, dict):
        raise ModelError(
            f"{client.settings.endpoint}/models answers with no JSON, but perhaps a page of HTML",
            hint="model.endpoint is the base URL of the interface, such as https://HOST/v1",
        )
    rows = [r for r in (listed or {}).get("data") or () if isinstance(r, dict)] if status == 200 else []
    mine = next((r for r in rows if r.get("id") == client.settings.name), rows[0] if len(rows) == 1 else {})
    known = (mine.get("max_model_len"), mine.get("context_length"), (mine.get("meta") or {}).get("n_ctx"))
    context = next((n for n in known if isinstance(n, int) and n > 0), None)
    status, props = await client.look("/props")
    llama = status == 200 and isinstance(props, dict) and "default_generation_settings" in props
    if llama:
        context = props["default_generation_settings"].get("n_ctx", context)
    tokenize = None
    for name in ("content", "prompt"):
        body = Offers(tokenize=name, name=client.settings.name).tokenize_body("7 + 5", special=False)
        status, said = await client.look("/tokenize", body)
        if status == 200 and isinstance(said, dict) and _whole_numbers(said.get("tokens")):
            tokenize = name
            break
    message = {"messages": [{"role": "user", "content": "mark"}]}
    status, said = await client.look("/apply-template", message)
    template = status == 200 and isinstance(said, dict) and "mark" in str(said.get("prompt"))
    return Offers(
        models=tuple(str(r.get("id")) for r in rows),
        context=context,
        llama=llama,
        tokenize=tokenize,
        template=template,
        name=client.settings.name,
    )


def _whole_numbers(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, int) for v in value)


async def tokenized(client: Client, offers: Offers, text: str, *, special: bool) -> tuple[int, ...]:
    """Give a text's tokens by the server."""
    status, said = await client.look("/tokenize", offers.tokenize_body(text, special=special))
    if status != 200 or not isinstance(said, dict) or not _whole_numbers(said.get("tokens")):
        raise ModelError(f"the endpoint's /tokenize answers with {status}")
    return tuple(said["tokens"])


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
    client.purse.trusts_usage = usage.verdict == "passes"
    checks.append(_logprobs(said))
    sampled, seeded = await _sampling(client, asking, offers, said)
    checks += [sampled, seeded]
    way: str | None = None
    if scoring and settings.scoring != "none":
        way, rows = await _scoring(client, asking, offers)
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


def _row(name: str, ok: bool | None, sentence: str) -> Check:  # noqa: FBT001 - a verdict in short
    verdict: Verdict = "doubtful" if ok is None else "passes" if ok else "fails"
    return Check(name=name, verdict=verdict, sentence=sentence)


async def _prompted(client: Client, asking: Asking, offers: Offers, text: str = _TEXT) -> Prompted:
    if asking.api == "chat":
        return Prompted({"messages": [{"role": "user", "content": text}]}, len(text.encode()) + _AROUND)
    if offers.tokenize is None:
        return Prompted({"prompt": text}, len(text.encode()) + _AROUND)
    ids = await tokenized(client, offers, text, special=True)
    return Prompted({"prompt": list(ids)}, len(ids))


async def _first(client: Client, asking: Asking, offers: Offers) -> tuple[Asking, Reply]:
    """Make the first completion, without what this interface refuses by name."""
    prompt = await _prompted(client, asking, offers)
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
        return _row("model", None, f"asked for {asked!r}; replies do not say which model answers")
    short = reported.rsplit("/", 1)[-1]
    same = {asked.lower(), asked.rsplit("/", 1)[-1].lower()}
    if not {reported.lower(), short.lower(), short.lower().removesuffix(".gguf")} & same:
        if not short.lower().startswith(asked.rsplit("/", 1)[-1].lower()):
            raise ModelError(
                f"the endpoint was asked for the model {asked!r} and answers as {reported!r}",
                hint="name the model that it has: model.name",
            )
        return _row(
            "model", None, f"{asked!r} is answered by {reported!r}: name that one, since an alias may move"
        )
    version = "" if said.fingerprint is None else f", fingerprint {said.fingerprint!r}"
    return _row("model", True, f"replies say {short!r}{version}")


def _told(offers: Offers, api: str) -> list[Check]:
    context = "not known" if offers.context is None else counted(offers.context, "token")
    tokens = "exact, by /tokenize" if offers.tokenize else "an estimate: the server does not tokenise"
    return [
        _row("interface", True, api + (", with the server's chat template" if offers.template else "")),
        _row("context", None if offers.context is None else True, context),
        _row("tokens", True if offers.tokenize else None, tokens),
    ]


async def _usage(client: Client, offers: Offers, asking: Asking, first: Reply) -> Check:
    said = first.answer
    if said.prompt_tokens is None or said.completion_tokens is None:
        return _row("usage", False, "not reported: every reply is charged at its most")
    most = 4
    wrong = []
    if not 0 < said.completion_tokens <= most:
        wrong.append(f"{said.completion_tokens} tokens of a completion that may have {most}")
    if said.tokens and abs(len(said.tokens) - said.completion_tokens) > 1:
        wrong.append(f"{said.completion_tokens} tokens where {len(said.tokens)} came back")
    if asking.api == "completions" and offers.tokenize:
        n = len(await tokenized(client, offers, _TEXT, special=True))
        if abs(said.prompt_tokens - n) > 1:
            wrong.append(f"{said.prompt_tokens} tokens of a prompt of {n}")
    elif not 0 < said.prompt_tokens <= len(_TEXT.encode()) + _AROUND:
        wrong.append(f"{said.prompt_tokens} tokens of a prompt of {len(_TEXT)} characters")
    if wrong:
        return _row("usage", False, f"wrong ({'; '.join(wrong)}): every reply is charged at its most")
    return _row("usage", True, f"right: {said.prompt_tokens} and {counted(said.completion_tokens, 'token')}")


def _logprobs(said: Answer) -> Check:
    if not said.tokens:
        return _row("log-probabilities", None, "of sampled tokens: none")
    n = max((len(t.top) for t in said.tokens), default=0)
    return _row("log-probabilities", True, f"of sampled tokens, with the {n} most probable in each place")


async def _sampling(client: Client, asking: Asking, offers: Offers, first: Answer) -> tuple[Check, Check]:
    """See whether temperature is honoured, by texts that must be equal and texts that must not."""
    prompt = await _prompted(client, asking, offers, "Write a few random words:")

    async def text(temperature: float, seed: int, again: int = 0) -> str:
        purpose = Purpose("", "", again, "probe")
        request = asking.completion(prompt, purpose, most=8, temperature=temperature, seed=seed)
        return (await client.ask(request)).answer.text

    cold = [await text(0.0, 1), await text(0.0, 2)]
    warm = [await text(1.9, seed) for seed in (1, 2, 3)]
    again = await text(1.9, 1, again=1)
    del first
    if cold[0] != cold[1]:
        sampled = _row("sampling", False, "temperature 0 gives different texts: it is not honoured")
    elif len({*warm, cold[0]}) == 1:
        sampled = _row("sampling", False, "temperature 1.9 gives the text of 0: it is not honoured")
    else:
        sampled = _row("sampling", True, "temperature is honoured: 0 repeats its text, 1.9 does not")
    if client.settings.sampling.seed == "none":
        return sampled, _row("seed", None, "none is sent")
    same = again == warm[0]
    return sampled, _row(
        "seed", True if same else None, f"the same one {'repeats' if same else 'does not repeat'} its text"
    )


# ---------------------------------------------------------------------------------------------- scoring
async def _scoring(client: Client, asking: Asking, offers: Offers) -> tuple[str | None, list[Check]]:
    """Try the ways of scoring a given answer, and take the first that is exact."""
    wanted = client.settings.scoring
    ways = [w for w in WAYS if wanted in {"auto", w} and (w == "top_logprobs") == (asking.api == "chat")]
    if not ways:
        why = f"{wanted} needs api: {'chat' if wanted == 'top_logprobs' else 'completions'}"
        return None, [_row("log P(given answer)", False, why)]
    if asking.api == "chat":
        return await _chat_scoring(client, asking, offers)
    route = await _token_by_token(client, asking, offers)
    if route is None:
        why = "no top-N of completions to hold it against"
        return None, [_row("log P(given answer)", None, why)]
    given, reference = route
    rows, taken = [], None
    for way in ways:
        if way != "echo" and not given.ids:
            rows.append(_row(f"scoring: {way}", None, "needs token ids, and the server does not tokenise"))
            continue
        try:
            request = ask_score(asking, way, given, Purpose("", "", 0, f"probe {way}"), ahead=True)
            found = read_score(way, given, await client.ask(request), ahead=True)
        except NotScoredError as error:
            rows.append(_row(f"scoring: {way}", None, f"ignored: {error.message.partition(': ')[2]}"))
            continue
        except FailedError as error:
            rows.append(_row(f"scoring: {way}", None, error.message))
            continue
        gap = abs(found.scores.total - reference)
        if len(found.scores.log_probs) != 2 or gap > _TOLERANCE:
            rows.append(_row(f"scoring: {way}", None, f"differs by {gap:.1e} from one token after the other"))
            continue
        rows.append(
            _row(
                f"scoring: {way}", True, f"agrees with one token after the other to {gap:.0e} in one request"
            )
        )
        taken = way
        break
    return taken, rows


async def _token_by_token(client: Client, asking: Asking, offers: Offers) -> tuple[Given, float] | None:
    """Score two improbable tokens by ordinary completions: each stands among the most probable ones."""
    ids = await tokenized(client, offers, _TEXT, special=True) if offers.tokenize else ()
    text, answer, total = _TEXT, "", 0.0
    chosen: tuple[int, ...] = ()
    for step in range(2):
        fields: Mapping[str, Any] = {"prompt": [*ids, *chosen] if ids else text + answer}
        prompt = Prompted(fields, len(ids) + 2 or len(text.encode()) + _AROUND)
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
    return Given(text, answer, ids, chosen, len((text + answer).encode()) + _AROUND), total


async def _chat_scoring(client: Client, asking: Asking, offers: Offers) -> tuple[str | None, list[Check]]:
    """See whether answers of one token can be read off a chat's most probable ones."""
    prompt = await _prompted(client, asking, offers)
    messages = tuple(prompt.fields["messages"])
    given = Given(_TEXT, "12", most_tokens=prompt.tokens, messages=messages)
    name = "scoring: top_logprobs"
    try:
        request = ask_score(asking, "top_logprobs", given, Purpose("", "", 0, "probe top"), ahead=False)
        top = (await client.ask(request)).answer.tokens
    except FailedError as error:
        return None, [_row(name, None, error.message)]
    if not top or len(top[0].top) < 2:
        return None, [_row(name, None, "ignored: no most probable tokens came back")]
    n = len(top[0].top)
    return "top_logprobs", [_row(name, True, f"of answers of one token among the {n} most probable")]


def doubts(abilities: Abilities) -> list[str]:
    """Say what the probe leaves in doubt, one line each."""
    return [
        f"{c.name}: {c.sentence}"
        for c in abilities.checks
        if c.verdict != "passes" and "scoring" not in c.name
    ]


def with_checks(abilities: Abilities, *rows: Check) -> Abilities:
    """Add rows to the table."""
    return replace(abilities, checks=(*abilities.checks, *rows))
