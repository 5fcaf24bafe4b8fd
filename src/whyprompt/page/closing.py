"""The page's last sections: what may not be claimed, and how to do it again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whyprompt._words import counted
from whyprompt.page.blocks import Text, details, table

if TYPE_CHECKING:
    from whyprompt.effects.result import EffectResult
    from whyprompt.page.blocks import Block
    from whyprompt.page.external import Material


def limits(m: Material) -> list[Block]:
    """Say what may not be claimed, from the assumptions and warnings that the results carry."""
    claims = (*_scope(m), *assumed(m.effect.main), *_inside(m))
    blocks: list[Block] = [Text("On the strength of this page nobody may claim:", items=claims)]
    noted = _warned(m)
    return blocks + ([Text("Notes that the results carry:", items=tuple(noted))] if noted else [])


def _scope(m: Material) -> list[str]:
    model = m.manifest.get("model")
    name = model.get("name") if isinstance(model, dict) else m.study.model.name
    items = m.effect.frame["item_id"].nunique()
    scope = (
        "anything about another model, another wording of the arms, or other kinds of items: this is the "
        f"model {name!r}, these two arms, and items drawn as these {items} were."
    )
    out = [scope]
    if m.effect.outcome in {"log_prob", "perplexity"}:
        out.append(
            f"that the model answers correctly more often: {m.effect.outcome!r} is how probable the right "
            "answer is, not whether it is given. See the other outcomes for that."
        )
    single = m.effect.main.items
    if single is not None:
        out.append(
            "that these items would fare the same under other shots or another wording."
            if single.noise == "none"
            else "that an item whose outcome was higher once is higher always: single differences hold the"
            " chance of sampling and of seeds."
        )
    return out


_CLAIMS = {
    "fails": "that the difference is an effect of the prompt: {!r} fails its check ({}).",
    "doubtful": "anything that leans on {!r}, which is doubtful: {}.",
    "untestable": "that {!r} was shown to hold; it was assumed, for no such data can test it.",
    "not checked": "that {!r} was checked; it was taken for granted.",
}


def assumed(main: EffectResult) -> list[str]:
    """Say what an estimate alone does not bear out."""
    out = [_CLAIMS[a.status].format(a.name, a.detail) for a in main.assumptions if a.status in _CLAIMS]
    low, high = main.ci_low, main.ci_high
    if low is not None and high is not None and low <= 0 <= high:
        out.append("that there is no effect: an interval that includes zero is not evidence of none.")
    return out


def _warned(m: Material) -> list[str]:
    out = []
    if m.effect.draw is not None:
        out += [f"On the adjusted draw: {w}." for w in m.effect.draw.adjusted.warnings]
    if m.effect.audit is not None:
        out += [f"On the audit: {w}." for w in m.effect.audit.warnings]
    return out


def _inside(m: Material) -> list[str]:
    found = m.mediation
    if found is None:
        return ["anything about what happens inside the model: the internal level was not run."]
    inference, suffix = found.main.inference, found.main.sweep.tokens == "suffix"
    where = "the tokens that both prompts end with" if suffix else "the answer positions"
    adds = (
        "that the effects of single heads add up: they do not; the joint effect of a set is what was "
        "computed for the set."
    )
    place = (
        f"that a head acts only as seen here: it was replaced at {where}, and what it does at earlier tokens "
        "is not part of its effect."
    )
    looks = "that attention explains the effect: where a head looks is shown, and it is not what was changed."
    beside = len(inference.sites) - len(inference.heads)
    tested = f"{len(inference.heads)} heads" + (f" and {counted(beside, 'other site')}" if beside else "")
    absent = (
        f"that a head without a mark does nothing: with {inference.n_clusters} sampling units no p is "
        f"below {inference.min_p:.2g}, and {tested} were tested."
    )
    out = [adds, place, looks, absent]
    if found.search is not None:
        out.append(
            "that the set found is the only one, or the smallest there is: the search is a heuristic, and "
            "other sets may carry as much."
        )
        if not found.search.reached:
            out.append(
                f"that these {found.search.noun}s are where the effect is: the search ended before they "
                f"carried {found.search.share:.0%} of it."
            )
        elif found.search.least.ends[0] <= 0:
            out.append(
                "that the set carries any of the effect on new items: the interval of its share on "
                "held-out items includes zero."
            )
    return out


def reproduce(m: Material) -> list[Block]:
    """How to do it again."""
    manifest = m.manifest
    # Whoever swept heads that this page has not would have another page.
    inside = () if m.mediation is None else ("mediate",)
    verbs = "\n".join(
        f"whyprompt {verb} STUDY.yaml --out DIR" for verb in ("run", "effect", *inside, "report")
    )
    blocks: list[Block] = [
        Text("Save the study below as STUDY.yaml. These commands run it, and write this page again:"),
        Text(verbs, "verbatim"),
        table("What was run", ("", "value"), _facts(manifest), name="manifest"),
    ]
    versions = manifest.get("versions")
    if isinstance(versions, dict):
        rows = [(str(k), str(v)) for k, v in versions.items()]
        blocks.append(details("Versions", table("Versions", ("package", "version"), rows)))
    text = manifest.get("study_text")
    if isinstance(text, str) and text:
        blocks.append(details("The study", Text(text, "verbatim")))
    return blocks


def _facts(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    command = manifest.get("command")
    if isinstance(command, list):
        rows.append(("command", " ".join(map(str, command))))
    names = {
        "started_at": "started",
        "trials": "trials",
        "items": "items",
        "study_fingerprint": "study fingerprint",
        "data_fingerprint": "data fingerprint",
    }
    rows += [(words, str(manifest[key])) for key, words in names.items() if key in manifest]
    model = manifest.get("model")
    if isinstance(model, dict):
        for key, value in model.items():
            shown = "; ".join(map(str, value)) if isinstance(value, list) else value
            if shown not in (None, ""):
                rows.append((f"model, {key.replace('_', ' ')}", str(shown)))
    for key in ("seeds", "platform"):
        part = manifest.get(key)
        if isinstance(part, dict):
            rows.append((key, ", ".join(f"{k} {v}" for k, v in part.items())))
    rows += [("notice", str(n)) for n in manifest.get("notices") or ()]
    return rows
