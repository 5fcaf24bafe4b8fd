"""The internal level of a study: through which heads its arms act."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from whyprompt._words import listed
from whyprompt.answers.beyond import Beyond, flip, flip_table, flips_of, learn_directions, written_outcome
from whyprompt.answers.chains import compute_chains, lack_chains, read_chains, text_study
from whyprompt.answers.pairs import chosen_items, study_pairs
from whyprompt.answers.related import relate, relation_table
from whyprompt.answers.saved import Kept, Saved
from whyprompt.errors import MediationError, StoreError
from whyprompt.mediation.capture import capture_attention, capture_heads
from whyprompt.mediation.directions import judge_directions
from whyprompt.mediation.inference import contrast_heads, infer_heads
from whyprompt.mediation.measured.compare import compare_mediation
from whyprompt.mediation.relations import relations
from whyprompt.mediation.search import find_heads
from whyprompt.mediation.sweep import site_sweep
from whyprompt.results import AroundResult, Result, plain
from whyprompt.study import ModelSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd

    from whyprompt.answers.chains import TextStudy
    from whyprompt.mediation.capture import AttentionCapture, HeadCapture
    from whyprompt.mediation.engine.sites import Kind
    from whyprompt.mediation.inference import HeadInference
    from whyprompt.mediation.measured.compare import MediationComparison
    from whyprompt.mediation.pairs import PromptPair
    from whyprompt.mediation.results import Sweep
    from whyprompt.mediation.search import HeadSearch
    from whyprompt.study import Contrast, Study
    from whyprompt.trials.models.local import LocalModel

    Progress = Callable[[int, int, str], None]

_Read = TypeVar("_Read")


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadStudy(AroundResult):
    """The effect of every head, and of other sites asked for, in one contrast of arms.

    Attributes
    ----------
    contrast : Contrast
    sweep : Sweep
        Potential outcomes, item by item.
    inference : HeadInference
        Of the natural indirect effects.
    """

    contrast: Contrast
    sweep: Sweep
    inference: HeadInference

    def _held(self) -> Result:
        return self.inference

    @property
    def sentence(self) -> str:
        """What its heads do, in words."""
        return self.inference.sentence

    @property
    def name(self) -> str:
        """The contrast in words."""
        return f"{self.contrast.treated} against {self.contrast.control}"


@dataclass(frozen=True, kw_only=True, eq=False)
class StudyMediation(AroundResult):
    """Through which heads a study's contrast acts.

    Attributes
    ----------
    study, model : str
    outcome, mediator : str
    main : HeadStudy
        The study's contrast.
    further : tuple of HeadStudy
        The other contrasts that the study asks for.
    differences : mapping of str to HeadInference
        The main sweep less another that has the same control arm, head by head.
    placebo : HeadStudy or None
        The noise floor: an arm that inserts text of no use.
    search : HeadSearch or None
        The smallest set of heads found that carries the wanted share; None where no search is possible.
    search_note : str
        Why there is no search; empty where there is one.
    attention : tuple of HeadCapture
        One item under both arms.
    capture : AttentionCapture
        Attention mass by segment, of every head and item under both arms of the main contrast.
    comparison : MediationComparison or None
        Statistical mediation by that mass beside the intervention; None where it cannot be had.
    comparison_note : str
        Why there is none; empty where there is one.
    item_tasks : mapping of str to str
        The task family of each item swept.
    sentence : str
    relations : Result or None
        Of `relate_heads`: paths, interactions and the joint effect of the heads with the largest effects;
        None where the study does not ask for them, or they were not computed yet.
    texts : TextStudy or None
        The chain before the answer as mediator, ``set``, ``measured`` and ``beside`` each a `Result` or None,
        with ``notes``; None where the study does not ask (``mediation.text``), or it was not computed yet.
    flips : Result or None
        Whether what the model writes flips: a row a set and way, with ``items_up`` and ``items_down``, how
        many items have a positive and a negative effect. None as of `relations`.
    directions : Result or None
        Of `head_directions`. None as of `relations`.
    """

    study: str
    model: str
    outcome: str
    mediator: str
    main: HeadStudy
    further: tuple[HeadStudy, ...]
    differences: dict[str, HeadInference]
    placebo: HeadStudy | None
    search: HeadSearch | None
    search_note: str
    attention: tuple[HeadCapture, ...]
    capture: AttentionCapture
    comparison: MediationComparison | None
    comparison_note: str
    item_tasks: dict[str, str]
    sentence: str
    relations: Result | None = None
    texts: TextStudy | None = None
    flips: Result | None = None
    directions: Result | None = None

    def _held(self) -> Result:
        return self.main.inference

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as values that JSON can hold.

        Returns
        -------
        dict
            ``total_effect``, ``heads`` (the largest absolute effect first, each with ``layer``, ``head``,
            ``nie``, ``nde``, ``ci_low``, ``ci_high``, ``p_adjusted``, ``q_value``), ``sites`` (what was set
            beside them, each with ``site``, ``kind`` and ``layer``), the set found, the further contrasts,
            and the sentence.
        """
        return {
            "study": self.study,
            **_contrast(self.main),
            "mediator": self.mediator,
            "tokens": self.main.sweep.tokens,
            "outcome": self.outcome,
            "n_items": len(self.main.sweep.item_ids),
            "n_clusters": self.main.inference.n_clusters,
            "smallest_possible_p": self.main.inference.min_p,
            "heads": _heads(self.main.inference),
            "sites": _others(self.main.inference),
            "set": None if self.search is None else self.search.to_dict(),
            "set_note": self.search_note,
            "contrasts": [
                _contrast(s) | {"heads": _heads(s.inference)[:20], "sentence": s.inference.sentence}
                for s in self.further
            ],
            "differences": {
                name: {"heads": _heads(i)[:20], "sentence": i.sentence}
                for name, i in self.differences.items()
            },
            "placebo": None
            if self.placebo is None
            else _contrast(self.placebo) | {"largest_head": _heads(self.placebo.inference)[0]},
            "statistical_beside": None
            if self.comparison is None
            else {
                "segment": self.comparison.segment,
                "rank_correlation": self.comparison.rank_correlation,
                "heads": _records(self.comparison.to_frame())[:20],
                "sentence": self.comparison.sentence,
            },
            "statistical_note": self.comparison_note,
            **{
                name: None if found is None else found.to_dict()
                for name, found in (
                    ("relations", self.relations),
                    ("flips", self.flips),
                    ("directions", self.directions),
                )
            },
            "text": None if self.texts is None else plain(self.texts._asdict()),
            "numerical_floor": self.main.sweep.floor,
            "notes": list(self.notes),
            "sentence": self.sentence,
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the main sweep has to know: its numerical floor, and which z is meant."""
        return tuple(f"{note[0].upper()}{note[1:]}." for note in self.main.sweep.notes)

    @property
    def tasks(self) -> str:
        """The task families swept, in words; of others nothing is said."""
        return listed(dict.fromkeys(self.item_tasks.values()))

    def summary(self, *, top: int = 8) -> str:
        """Return the answer as text for a terminal.

        Parameters
        ----------
        top : int, default 8
            Heads listed.

        Returns
        -------
        str
        """
        blocks = [self.sentence, _head_table(self.main.inference, top), *self.notes]
        if self.search is not None:
            blocks.append(self.search.sentence)
        elif self.search_note:
            blocks.append(f"No set of heads was searched for: {self.search_note}.")
        if self.relations is not None:
            blocks += [self.relations.sentence, relation_table(self.relations)]
        if self.flips is not None:
            blocks += [self.flips.sentence, flip_table(self.flips)]
        if self.directions is not None:
            blocks.append(self.directions.sentence)
        blocks += [f"{study.name}: {study.inference.sentence}" for study in self.further]
        blocks += [f"{name}: {inference.sentence}" for name, inference in self.differences.items()]
        if self.placebo is not None:
            blocks.append(_floor(self.main, self.placebo))
        if self.comparison is not None:
            blocks.append(self.comparison.sentence)
        if self.texts is not None:
            said = (self.texts.set, self.texts.measured, self.texts.beside)
            blocks += [*(one.sentence for one in said if one is not None), *self.texts.notes]
        return "\n\n".join(blocks)


_PS = ("p_value", "p_adjusted", "q_value")


_BESIDE: tuple[Kind, ...] = ("attn", "mlp", "neuron", "resid")


def _heads(inference: HeadInference) -> list[dict[str, Any]]:
    return _listed_of(inference.of_kind("head"), ("layer", "head"))


def _others(inference: HeadInference) -> list[dict[str, Any]]:
    return _listed_of(inference.of_kind(*_BESIDE), ("site", "kind", "layer"))


def _listed_of(inference: HeadInference, names: tuple[str, ...]) -> list[dict[str, Any]]:
    if not inference.sites:
        return []
    keep = (*names, inference.quantity, "nde", "ci_low", "ci_high", *_PS)
    frame = inference.to_frame()
    return _records(frame[[k for k in keep if k in frame.columns]])


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Give rows that JSON can hold: None where the items do not bound a value, or nothing is known."""
    return [{str(k): plain(v) for k, v in row.items()} for row in frame.to_dict("records")]


def _contrast(study: HeadStudy) -> dict[str, Any]:
    total = {k: plain(getattr(study.inference, k)) for k in ("estimate", "ci_low", "ci_high")}
    return {"treated": study.contrast.treated, "control": study.contrast.control, "total_effect": total}


def _head_table(inference: HeadInference, top: int) -> str:
    others = _others(inference)
    rows = [({"site": "{layer}.{head}".format(**row)} | row) for row in _heads(inference)[:top]]
    if others:
        rows = [row | {"site": f"head {row['site']}"} for row in rows]
    # Of each other kind a few: all layers' residual streams would leave room for nothing else.
    for kind in _BESIDE:
        rows += [row for row in others if row["kind"] == kind][: top // 2]
    width = max([6, *(len(row["site"]) for row in rows)])
    what = "site" if others else "head"
    lines = [f"  {what:{width}}   NIE     interval             NDE     q       p (family-wise)"]
    for row in rows:
        ends = [row["ci_low"], row["ci_high"]]
        span = "no interval" if None in ends else f"{ends[0]:.3f} to {ends[1]:.3f}"
        lines.append(
            f"  {row['site']:{width}} {row[inference.quantity]:7.3f}  {span:18} "
            f"{row.get('nde', float('nan')):7.3f}  {row['q_value']:.4f}  {row['p_adjusted']:.4f}"
        )
    return "\n".join(lines)


def _floor(main: HeadStudy, placebo: HeadStudy) -> str:
    noise, mean = (abs(one.inference.of_kind("head").mean) for one in (placebo, main))
    largest, above = float(noise.max()), int((mean > noise.max()).sum())
    return (
        f"Noise floor: in {placebo.name}, where nothing useful is inserted, the largest effect of a head is "
        f"{largest:.3g}; {above} of {len(mean)} heads exceed it in {main.name}."
    )


def study_mediation(
    study: Study,
    folder: str | Path,
    frame: pd.DataFrame,
    *,
    progress: Progress | None = None,
) -> StudyMediation:
    """Sweep every head in a study's contrasts, search for the set that carries the effect, and set texts.

    Finished items are kept in ``folder/mediation``; an interrupted sweep goes on where it was.

    Parameters
    ----------
    study : Study
        With ``mediation`` settings; without them, the defaults.
    folder : str or Path
        Of the study's results.
    frame : pandas.DataFrame
        Its trial table.
    progress : callable, optional
        Called as ``progress(done, total, text)``.

    Returns
    -------
    StudyMediation

    Raises
    ------
    MediationError
        If the arms end in different cues, the model cannot be analysed, or there are too few items.
    StoreError
        If another process is at the same mediation.
    """
    report = progress or (lambda _done, _total, _text: None)
    saved = Saved.open(study, folder, frame)
    kept, beyond = _whole(saved, report)
    if kept is None or beyond.lacking(saved) or lack_chains(saved):
        with saved.writing():
            # Another process may have finished meanwhile.
            kept, beyond = _whole(saved, report)
            if kept is None or beyond.lacking(saved) or lack_chains(saved):
                _compute(saved, frame, report, swept=kept is not None, beyond=beyond.lacking(saved))
                kept, beyond = saved.read(), Beyond.read(saved)
                assert kept is not None
    return _gather(saved, kept, beyond)


def _whole(saved: Saved, report: Progress) -> tuple[Kept | None, Beyond]:
    """Read a mediation and what goes beyond; None for what is not finished, or damaged, which is said."""

    def read(what: Callable[[], _Read | None]) -> _Read | None:
        try:
            return what()
        except StoreError as error:
            report(0, 0, f"{error.message}: computed again")
            return None

    return read(saved.read), Beyond.read(saved, read)


def load_mediation(study: Study, folder: str | Path, frame: pd.DataFrame) -> StudyMediation | None:
    """Read a finished mediation; None where it was not run, or belongs to other trials.

    Parameters
    ----------
    study : Study
    folder : str or Path
    frame : pandas.DataFrame
        The study's trial table.

    Returns
    -------
    StudyMediation or None

    Raises
    ------
    StoreError
        If it was finished, and a file of it is damaged since.
    """
    saved = Saved.open(study, folder, frame)
    kept = saved.read()
    return None if kept is None else _gather(saved, kept, Beyond.read(saved))


def _named(report: Progress, name: str) -> Progress:
    """Report the progress of what says only how far it is."""
    return lambda done, total, _text: report(done, total, name)


def _compute(
    saved: Saved, frame: pd.DataFrame, report: Progress, *, swept: bool, beyond: tuple[str, ...]
) -> None:
    from whyprompt.mediation.engine.apart import model_from
    from whyprompt.trials.models.load import load_model, sweep_dtype
    from whyprompt.trials.models.remote import Loader

    study = saved.study
    if not isinstance(study.model, ModelSettings):
        raise MediationError(
            f"study {study.name!r} runs on an endpoint, and heads are set and cut in a model's own weights",
            hint="run the study on a local model: model: {name: ...}",
        )
    if saved.flips:
        written_outcome(study)
    report(0, 0, "loading the model")
    # Texts are written and scored too, in the study's own type.
    texts = saved.settings.text or saved.flips
    dtype = study.model.dtype if texts else sweep_dtype(study.model)
    lm = load_model(**study.model.model_dump() | {"dtype": dtype})
    if lack_chains(saved):
        compute_chains(lm, saved, frame, report)
    with model_from(Loader(lm.described(), study.model)):
        if not swept:
            _compute_with(lm, saved, frame, report)
        for name, run in (("relations", relate), ("flips", flip), ("directions", learn_directions)):
            if name in beyond:
                run(lm, saved, frame, report)


def _compute_with(lm: LocalModel, saved: Saved, frame: pd.DataFrame, report: Progress) -> None:
    study, settings, contrasts = saved.study, saved.settings, saved.contrasts
    items = chosen_items(study, settings)
    main_pairs: list[PromptPair] = []
    for contrast in contrasts:
        pairs = study_pairs(study, contrast, items, lm.codec, frame)
        main_pairs = main_pairs or pairs
        done = saved.outcomes(contrast)
        name = f"{'sites' if settings.sites else 'heads'}, {contrast.treated} against {contrast.control}"
        report(len(done), len(pairs), name)
        sweep = site_sweep(
            lm.model,
            pairs,
            ["head", *settings.sites],
            mediator=settings.mediator,
            tokens=settings.tokens,
            outcome=settings.outcome,
            done=done,
            on_pair=saved.keeper(contrast),
            progress=_named(report, name),
        )
        saved.finish(contrast, sweep)
    main = saved.sweep(contrasts[0])
    report(0, settings.max_heads, "the smallest set")
    try:
        search: HeadSearch | str = find_heads(
            lm.model,
            main_pairs,
            sweep=main,
            sites=settings.set_of,
            share=settings.share,
            max_heads=settings.max_heads,
            candidates=settings.candidates,
            mediator=settings.mediator,
            level=settings.level,
            random_state=study.seeds.analysis,
            progress=lambda done, total, text: report(done, total, f"the smallest set, {text}"),
        )
    except MediationError as error:
        # A study too small to hold items out still has its sweep; it says why it has no set.
        search = error.message
    report(0, len(main_pairs), "attention")
    capture = capture_attention(lm.model, main_pairs, progress=_named(report, "attention"))
    pictures = _pictures(lm, main_pairs, contrasts[0], main)
    saved.close(search, pictures, capture)


def _pictures(
    lm: LocalModel, pairs: list[PromptPair], contrast: Contrast, sweep: Sweep
) -> tuple[HeadCapture, ...]:
    """Draw the item whose total effect is the median: neither the best nor the worst."""
    import numpy as np

    te = sweep.te
    middle = int(np.argsort(te)[len(te) // 2])
    pair = next(p for p in pairs if p.item_id == sweep.item_ids[middle])
    decode = lm.codec.tokenizer.decode
    out = []
    arms: tuple[tuple[Literal[0, 1], str], ...] = ((0, contrast.control), (1, contrast.treated))
    for arm, name in arms:
        seen = capture_heads(lm.model, pair, arm=arm)
        out.append(replace(seen, arm=name, tokens=tuple(map(decode, seen.token_ids))))
    return tuple(out)


def _gather(saved: Saved, kept: Kept, beyond: Beyond) -> StudyMediation:
    chains = read_chains(saved)
    study, settings = saved.study, saved.settings
    how: dict[str, Any] = {"level": settings.level, "random_state": study.seeds.analysis}
    sweeps, search, attention, capture = kept

    def studied(contrast: Contrast, sweep: Sweep) -> HeadStudy:
        inference = infer_heads(sweep, level=settings.level, random_state=study.seeds.analysis)
        return HeadStudy(contrast=contrast, sweep=sweep, inference=inference)

    main, *others = (studied(c, s) for c, s in zip(saved.contrasts, sweeps, strict=True))
    placebo = next((s for s in others if s.contrast.treated == settings.placebo), None)
    further = tuple(s for s in others if s is not placebo)
    differences = {
        f"{main.name}, less {other.name}": contrast_heads(
            main.sweep, other.sweep, level=settings.level, random_state=study.seeds.analysis
        )
        for other in others
        if other.contrast.control == main.contrast.control
    }
    try:
        comparison, why = (
            compare_mediation(
                main.sweep,
                capture,
                settings.segment or _segment(capture),
                level=settings.level,
                random_state=study.seeds.analysis,
            ),
            "",
        )
    except MediationError as error:
        comparison, why = None, error.message
    return StudyMediation(
        study=study.name,
        model=main.sweep.model,
        outcome=main.sweep.outcome,
        mediator=main.sweep.mediator,
        main=main,
        further=further,
        differences=differences,
        placebo=placebo,
        search=None if isinstance(search, str) else search,
        search_note=search if isinstance(search, str) else "",
        attention=attention,
        capture=capture,
        comparison=comparison,
        comparison_note=why,
        relations=None if beyond.relations is None else relations(beyond.relations, picked=True, **how),
        flips=None if beyond.flips is None else flips_of(beyond.flips, main.contrast, **how),
        directions=None
        if beyond.directions is None
        else judge_directions(beyond.directions, level=settings.level),
        item_tasks=saved.item_tasks,
        texts=None if chains is None else text_study(saved, chains),
        sentence=(
            f"{main.contrast.treated!r} against {main.contrast.control!r}, on items of "
            f"{listed(dict.fromkeys(saved.item_tasks.values()))}: {main.inference.sentence}"
        ),
    )


def _segment(capture: AttentionCapture) -> str:
    """Name what the treated arm's prompt has and the control's has not; else the question."""
    import numpy as np

    has = np.asarray(np.isfinite(capture.mass).any(axis=(0, 2)))
    own = [
        name
        for k, name in enumerate(capture.segments)
        if has[1, k] and not has[0, k] and not name.startswith("(")
    ]
    for name in ("reasoning", "shots", *own):
        if name in own:
            return name
    return "question"
