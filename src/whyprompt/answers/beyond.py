"""A study's heads beyond their sweep: what flips when the model writes, and heads' directions."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from whyprompt._summary import parts_table
from whyprompt._words import counted, percent
from whyprompt.answers.pairs import chosen_items, study_pairs
from whyprompt.errors import StudyError
from whyprompt.mediation.directions import try_directions
from whyprompt.mediation.engine.sites import as_sites
from whyprompt.mediation.generation import generation_sweep
from whyprompt.mediation.inference import infer_heads
from whyprompt.mediation.intervals import interval_words
from whyprompt.mediation.relate import top_heads
from whyprompt.results import Result
from whyprompt.trials.models.generation import text_of
from whyprompt.trials.outcomes.score import any_reads, reads_written, score_outcomes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

    from whyprompt.answers.saved import Saved
    from whyprompt.mediation.pairs import PromptPair
    from whyprompt.mediation.results import Sweep
    from whyprompt.results import Estimate
    from whyprompt.study import Contrast, OutcomeSettings, Study
    from whyprompt.trials.models.local import LocalModel

    Report = Callable[[int, int, str], None]

TOGETHER = "all together"
_WAYS = {"nie": "NIE", "pure_nie": "pure NIE"}
_SAID = 2


class Beyond(NamedTuple):
    """What is kept of heads beyond their sweep; None for what is not asked for, or not finished."""

    relations: Sweep | None
    flips: Sweep | None
    directions: dict[str, Any] | None

    @classmethod
    def read(cls, saved: Saved, by: Callable[[Callable[[], Any]], Any] = lambda what: what()) -> Beyond:
        """Read it, each by a function that may say what is damaged."""
        relations, flips = (by(partial(saved.further, name)) for name in (saved.relations, saved.flips))
        return cls(relations, flips, by(saved.tried))

    def lacking(self, saved: Saved) -> tuple[str, ...]:
        """Name what is asked for and not there."""
        found = zip(self._fields, self, strict=True)
        return tuple(name for name, own in found if own is None and getattr(saved, name))


def written_outcome(study: Study) -> OutcomeSettings:
    """Give the outcome by which a study scores what its model writes; none is a `StudyError`."""
    for outcome in study.outcomes:
        if reads_written(outcome) and outcome.judge is None:
            return outcome
    raise StudyError(
        "mediation.flips asks whether what the model writes flips, and no outcome of the study reads that",
        hint="add one: outcomes: [log_prob, exact_match], or numeric_match, string_match, choice_match",
    )


def _ends(
    ids: Sequence[int], *, at: frozenset[int], texts: Sequence[str], decode: Callable[[list[int]], str]
) -> bool:
    """Say whether a text ends: at its last token, or since its words have what a study stops at."""
    return ids[-1] in at or any(end in str(decode([*ids])) for end in texts)


def flip(lm: LocalModel, saved: Saved, frame: pd.DataFrame, report: Report) -> None:
    """Write under patches what the study asks for, score it as the study does, and keep it."""
    study, settings, contrast = saved.study, saved.settings, saved.contrasts[0]
    items = chosen_items(study, settings)
    pairs = study_pairs(study, contrast, items, lm.codec, frame)
    asked = settings.flips
    assert asked is not None
    chosen = as_sites(top_heads(saved.sweep(contrast), asked) if isinstance(asked, int) else asked)
    sets = {str(site): [site] for site in chosen}
    if len(chosen) > 1:
        sets[TOGETHER] = [*chosen]
    outcome, known = written_outcome(study), {item.item_id: item for item in items}
    ends, stop = lm.codec.stop_ids, study.generation.stop
    whole = any_reads([outcome], "completion")

    def score(pair: PromptPair, ids: Sequence[int]) -> float:
        if not whole:
            n = pair.n_answer
            written = tuple(ids[:n]) == tuple(pair.answer_ids)
            return float(written and all(map(lm.codec.ends_answer, ids[n : n + 1])))
        text = text_of(lm.codec, [i for i in ids if i not in ends], stop)
        where = f"item {pair.item_id!r}, under a patch"
        return score_outcomes([outcome], known[pair.item_id], completion=text, where=where)[0][outcome.name]

    sweep = generation_sweep(
        lm.model,
        pairs,
        sets,
        score=score,
        outcome=outcome.name,
        max_new_tokens=study.generation.max_new_tokens if whole else 1 + max(p.n_answer for p in pairs),
        # Workers are sent it.
        stop=partial(
            _ends, at=frozenset(ends), texts=stop if whole else (), decode=lm.codec.tokenizer.decode
        ),
        done=saved.outcomes(saved.flips),
        on_pair=saved.keeper(saved.flips),
        progress=lambda done, total, text: report(done, total, f"what is written under patches, {text}"),
    )
    saved.finish(saved.flips, sweep)


def learn_directions(lm: LocalModel, saved: Saved, frame: pd.DataFrame, report: Report) -> None:
    """Learn and try the directions of the heads with the largest effects, and keep what came of it."""
    study, settings, contrast = saved.study, saved.settings, saved.contrasts[0]
    assert settings.directions is not None
    pairs = study_pairs(study, contrast, chosen_items(study, settings), lm.codec, frame)
    tried = try_directions(
        lm.model,
        pairs,
        sweep=saved.sweep(contrast).of_kind("head"),
        top=settings.directions,
        outcome="prob" if settings.outcome == "prob" else "log_prob",
        random_state=study.seeds.analysis,
        progress=lambda done, total, _text: report(done, total, "directions"),
    )
    saved.keep_tried(tried)


def flips_of(sweep: Sweep, contrast: Contrast, *, level: float, random_state: int) -> Result:
    """Say what flips, both ways: a row a set and way, with how many items turn right and wrong."""
    ways = {
        quantity: infer_heads(sweep, quantity=quantity, level=level, random_state=random_state)
        for quantity in _WAYS
    }
    parts = []
    for k in range(len(sweep.labels)):
        for quantity, found in ways.items():
            effect = sweep.effect(quantity)[:, k]
            figures = {"items_up": int((effect > 0).sum()), "items_down": int((effect < 0).sum())}
            parts.append(replace(found.parts[k], by=_WAYS[quantity], figures=figures))
    total = ways["nie"].overall
    out = Result(sentence="", overall=total, parts=tuple(parts), level=level, axis=f"effect on {sweep.scale}")
    return replace(out, sentence=_sentence(out, sweep, contrast))


def _sentence(r: Result, sweep: Sweep, contrast: Contrast) -> str:
    assert sweep.y00 is not None
    assert sweep.y11 is not None
    assert r.overall is not None
    n = len(sweep.y00)
    arms = ((sweep.y00, contrast.control), (sweep.y11, contrast.treated))
    each = (
        f"{int(y.sum())} of {n} are right under {name!r}"
        if sweep.binary
        else f"a mean of {y.mean():.3g} under {name!r}"
        for y, name in arms
    )
    text = (
        f"On {sweep.scale}, every token of it the model's first choice: {' and '.join(each)}, a total effect "
        f"of {r.overall.estimate:.3g} ({interval_words(*r.overall.ends, percent(r.level))})."
    )
    size = {
        label: max(abs(r.part(label, by=way).estimate or 0.0) for way in _WAYS.values())
        for label in sweep.labels
    }
    first = sorted(sweep.labels, key=lambda label: (label != TOGETHER, -size[label]))
    for label in first[:_SAID]:
        nie, pure = (r.part(label, by=way) for way in _WAYS.values())
        what = "All together" if label == TOGETHER else label[0].upper() + label[1:]
        text += (
            f" {what}, set under {contrast.treated!r} to what it gives under {contrast.control!r}, "
            f"{_moved(nie, -1)}: NIE {nie.estimate:.3g} ({interval_words(*nie.ends)}); the other way round "
            f"it {_moved(pure, 1)}: pure NIE {pure.estimate:.3g} ({interval_words(*pure.ends)})."
        )
    return text


def _moved(row: Estimate, sign: int) -> str:
    """Say how many items lose and gain by a patch; an NIE is what is lost."""
    up, down = row["items_up"], row["items_down"]
    gains, losses = (up, down) if sign > 0 else (down, up)
    return f"raises the score of {counted(gains, 'item')} and lowers that of {losses}"


def flip_table(found: Result) -> str:
    """Lay out what flips as text."""
    return parts_table(found.parts, adjusted="family-wise")
