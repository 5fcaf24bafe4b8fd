"""A study: the question, its items, arms, outcomes, design and seeds, as one validated model.

A study is written in YAML or TOML. Every key is checked; an unknown one is refused with the file and the
line it stands on. :meth:`Study.trial_spec` gives the part of a study that decides what its trials are: a
change there makes new trials, a change elsewhere (the question, the graph, the estimator) does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Field, PrivateAttr, Tag, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from whyprompt._endpoint_settings import (
    BudgetSettings,
    EndpointSettings,
    KeySettings,
    LimitSettings,
    MissingSettings,
    OrderSettings,
    PriceSettings,
    SamplingSettings,
    on_endpoint,
)
from whyprompt._rows import unreadable
from whyprompt._sources import Lines, known_location, line_of, read_source
from whyprompt._study_forms import standard, told_twice, with_short_forms
from whyprompt._study_items import (
    Columns,
    FileSource,
    Gsm8kSource,
    HubSource,
    ItemSource,
    Name,
    NaturalInstructionsSource,
    ReasoningGymSource,
    Strict,
)
from whyprompt._study_outcomes import JudgeSettings, Outcome, OutcomeSettings
from whyprompt._study_settings import (
    Arm,
    AuditSettings,
    ChainOfThoughtArm,
    Contrast,
    DesignSetting,
    DirectArm,
    EffectSettings,
    FewShotArm,
    FormatArm,
    GenerationSettings,
    MediationSettings,
    ModelSettings,
    Problem,
    Seeds,
    TemperatureRange,
    TemplateArm,
)
from whyprompt._study_words import plain_problem
from whyprompt._words import did_you_mean
from whyprompt.errors import EstimationError, StudyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "Arm",
    "AuditSettings",
    "BudgetSettings",
    "ChainOfThoughtArm",
    "Columns",
    "Contrast",
    "DirectArm",
    "EffectSettings",
    "EndpointSettings",
    "FewShotArm",
    "FileSource",
    "FormatArm",
    "GenerationSettings",
    "Gsm8kSource",
    "HubSource",
    "ItemSource",
    "JudgeSettings",
    "KeySettings",
    "LimitSettings",
    "MediationSettings",
    "MissingSettings",
    "ModelSettings",
    "NaturalInstructionsSource",
    "OrderSettings",
    "OutcomeSettings",
    "PriceSettings",
    "ReasoningGymSource",
    "SamplingSettings",
    "Seeds",
    "Study",
    "TemperatureRange",
    "TemplateArm",
    "load_study",
    "study_json_schema",
]


_Model = Annotated[
    Annotated[ModelSettings, Tag("(local)")] | Annotated[EndpointSettings, Tag("(endpoint)")],
    # Judged as what it is written as: a message then speaks of that alone.
    Discriminator(lambda v: "(endpoint)" if on_endpoint(v) else "(local)"),
]


class Study(Strict):
    """A study, validated.

    Examples
    --------
    >>> from whyprompt.study import Study
    >>> study = Study.model_validate({
    ...     "name": "demo",
    ...     "question": "Do shots help?",
    ...     "items": [{"source": "reasoning_gym", "dataset": "chain_sum", "size": 4}],
    ...     "arms": {"direct": {"kind": "direct"}, "shots": {"kind": "few_shot", "shots": 2}},
    ... })
    >>> study.contrast.treated, study.contrast.control
    ('shots', 'direct')
    """

    name: Name
    question: str
    items: list[ItemSource] = Field(min_length=1)
    model: _Model = ModelSettings()
    arms: dict[Name, Arm] = Field(min_length=1)
    outcomes: list[Outcome] = Field(
        default_factory=lambda: [OutcomeSettings(name="log_prob"), OutcomeSettings(name="exact_match")],
        min_length=1,
    )
    covariates: tuple[Literal["question_tokens", "question_perplexity"], ...] = Field(
        default=("question_tokens", "question_perplexity"),
        strict=False,  # a file has lists, not tuples
        description="Measured for every item, beside task_type, difficulty and the source's own. Default on"
        " an endpoint: none.",
    )
    generation: GenerationSettings = GenerationSettings()
    reps: Annotated[int, Field(ge=1, le=10_000, description="Repetitions, each with seeds of its own.")] = 1
    graph: str | None = Field(default=None, description="Causal graph, as 'a -> b; b -> c'.")
    design: DesignSetting = Field(
        default="paired",
        description=(
            "paired: every item under every arm; randomized: one arm for each item and repetition, drawn "
            "with equal chances; observational: the arms were chosen by others, as in a log. Of a log also "
            "one with its options: {instrument: {instrument: drawn}}, {front_door: {mediators: [steps]}} or "
            "{rollout: {time: started_at, unit: route}}."
        ),
    )
    effect: EffectSettings = EffectSettings()
    mediation: MediationSettings | None = None
    seeds: Seeds = Seeds()
    order: OrderSettings = OrderSettings()
    missing: MissingSettings = MissingSettings()

    @model_validator(mode="before")
    @classmethod
    def _readable(cls, value: Any) -> Any:  # noqa: ANN401 - raw input, whatever the file holds
        _refuse(_unreadable_values(value))
        if isinstance(value, dict):
            _refuse(told_twice(value.get("arms")))
            value = standard(value)
        if isinstance(value, dict) and "covariates" not in value and on_endpoint(value.get("model")):
            # Nothing there measures a question for free.
            return {**value, "covariates": []}
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        _refuse(_contradictions(self))
        return self

    # Where the study was read is no part of what it says: two of the same settings are equal.
    _source: tuple[Path, Lines] | None = PrivateAttr(default=None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Study) and dict(self) == dict(other)

    __hash__ = None  # type: ignore[assignment]

    def refusal(self, problems: Iterable[Problem]) -> StudyError:
        """Give the error that names what is wrong, each with its key and, where it was read, file and line.

        Parameters
        ----------
        problems : iterable of (location, message)
            A location is a path of keys, such as ``("effect", "by")``.

        Returns
        -------
        StudyError
        """
        lines = []
        for location, message in problems:
            key = ".".join(map(str, location))
            place = f"study {self.name!r}"
            if self._source is not None:
                path, known = self._source
                place = f"{path}:{line_of(known, location)}"
            lines.append(f"{place}: {key}: {message}")
        return StudyError("\n".join(lines))

    @property
    def design_name(self) -> str:
        """The design without its options."""
        return self.design if isinstance(self.design, str) else next(iter(self.design), "")

    @property
    def design_options(self) -> dict[str, Any]:
        """Its options."""
        if isinstance(self.design, str):
            return {}
        return dict(self.design.get(next(iter(self.design), "rollout")) or {})

    @property
    def contrast(self) -> Contrast:
        """The contrast of the external level: as given, else the second arm against the first."""
        if self.effect.contrast is not None:
            return self.effect.contrast
        arms = list(self.arms)
        if len(arms) < 2:
            raise StudyError(
                f"study {self.name!r} has one arm ({arms[0]}): there is nothing to compare",
                hint="add a second arm, for example arms: [direct, few_shot]",
            )
        return Contrast(treated=arms[1], control=arms[0])

    def trial_spec(self) -> dict[str, Any]:
        """Give the part of the study that decides what its trials are.

        Returns
        -------
        dict
            JSON-serialisable; its hash, with the items' own, is the study's fingerprint.
        """
        keep = {"name", "items", "arms", "outcomes", "covariates", "generation", "reps"}
        spec = self.model_dump(mode="json", include=keep)
        for source in spec["items"]:
            source.pop("path", None)  # the items' content has a digest of its own; a moved file is the same
        for outcome in spec["outcomes"]:
            # How fast a judge is asked, and for how much, moves none of its replies.
            if isinstance(model := (outcome["judge"] or {}).get("model"), dict):
                for name in ("key", "limits", "price", "budget", "proxy", "batch", "scoring"):
                    del model[name]
        spec["seeds"] = {
            "items": self.seeds.items,
            "shots": self.seeds.shots,
            "sampling": self.seeds.sampling,
        }
        if self.design == "randomized":
            spec["assignment"] = "one arm an item and repetition, equal chances"
        return spec

    def n_trials(self, n_items: int) -> int:
        """Give how many trials so many items make under this design.

        Parameters
        ----------
        n_items : int

        Returns
        -------
        int
            Every item under every arm where the design is paired; one arm an item where it is randomized.
        """
        return n_items * self.reps * (1 if self.design == "randomized" else len(self.arms))


# ------------------------------------------------------------------------------- what contradicts itself
def _unreadable_values(node: Any, at: tuple[str | int, ...] = ()) -> Iterator[Problem]:  # noqa: ANN401 - raw
    """Find values that no setting can hold: half characters, NUL, nan, infinity, numbers beyond 64 bits."""
    if isinstance(node, dict):
        for key, value in node.items():
            if (why := _odd(key)) is not None:
                yield at, f"a key {why}"
            else:
                yield from _unreadable_values(value, (*at, key))
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            yield from _unreadable_values(value, (*at, i))
    elif (why := _odd(node)) is not None:
        yield at, why


def _odd(value: object) -> str | None:
    if isinstance(value, str) and "\0" in value:
        return "holds a NUL character"
    if isinstance(value, int) and abs(value) >= 2**63:
        return "holds a whole number beyond 64 bits"
    return unreadable(value)


def _contradictions(study: Study) -> Iterator[Problem]:
    """Find what in a study does not go together, known from the study alone."""
    yield from _outcomes(study)
    yield from _arms(study)
    yield from _design(study)
    yield from _endpoint(study)


def _endpoint(study: Study) -> Iterator[Problem]:
    local = isinstance(study.model, ModelSettings)
    for key, default in (("order", OrderSettings()), ("missing", MissingSettings())):
        # Of a judge behind an endpoint a reply may be missing whatever the model is.
        asked = key == "missing" and any(
            o.judge is not None and isinstance(o.judge.model, EndpointSettings) for o in study.outcomes
        )
        if local and not asked and getattr(study, key) != default:
            yield (key,), "has no meaning on a local model, which answers every trial: leave it out"
    if local:
        return
    assert isinstance(study.model, EndpointSettings)
    if study.missing.batch == "alone":
        price, limited = study.model.price, study.model.budget.money is not None
        if not study.model.batch:
            yield ("missing", "batch"), "is of batches, and model.batch is not set: leave it out"
        elif limited and price is not None and price.batch is None:
            yield (
                ("model", "price"),
                "what a batch leaves out is asked for at the full price, and a budget needs both: batch: 0.5",
            )
    if "question_perplexity" in study.covariates:
        yield ("covariates",), "question_perplexity is not measured on an endpoint: leave it out"
    if study.mediation is not None:
        yield ("mediation",), "needs a model's own weights, and this one is behind an endpoint: leave it out"


def _outcomes(study: Study) -> Iterator[Problem]:
    names = [o.name for o in study.outcomes]
    for i, name in enumerate(names):
        if name in names[:i]:
            yield ("outcomes", i), f"outcome {name!r} is listed twice"
        if name.endswith("_extracted"):
            yield (
                ("outcomes", i, "name"),
                f"{name!r} ends as the column of what an outcome took for the answer",
            )
    for i, outcome in enumerate(study.outcomes):
        labels = None if outcome.judge is None else outcome.judge.labels
        others = [n for n in names if n != outcome.name]
        if labels is not None and labels not in others:
            why = f"{labels!r} is no other outcome of the study: {', '.join(others) or 'there is none'}"
            yield ("outcomes", i, "judge", "labels"), why
    for i, source in enumerate(study.items):
        for k, column in enumerate(getattr(getattr(source, "columns", None), "covariates", ())):
            if column in names:
                yield (
                    ("items", i, "columns", "covariates", k),
                    f"{column!r} is both an outcome and a covariate: rename one",
                )
    if study.effect.outcome not in names:
        asked = study.effect.outcome
        near = did_you_mean(asked, names) or ": name one of them"
        yield ("effect", "outcome"), f"{asked!r} is not among the outcomes ({', '.join(names)}){near}"


def _arms(study: Study) -> Iterator[Problem]:
    contrasts: list[tuple[tuple[str | int, ...], Contrast | None]] = [
        (("effect", "contrast"), study.effect.contrast)
    ]
    mediation = study.mediation
    if mediation is not None:
        contrasts.append((("mediation", "contrast"), mediation.contrast))
        contrasts += [(("mediation", "contrasts", i), c) for i, c in enumerate(mediation.contrasts)]
    for where, contrast in contrasts:
        if contrast is None:
            continue
        for role in ("treated", "control"):
            arm = getattr(contrast, role)
            if arm not in study.arms:
                yield (*where, role), _no_arm(study, arm)
        if contrast.treated == contrast.control:
            yield where, f"compares {contrast.treated!r} with itself"
    placebo = mediation.placebo if mediation is not None else None
    if placebo is not None and placebo not in study.arms:
        yield ("mediation", "placebo"), _no_arm(study, placebo)
    yield from _text(study)
    for name, arm in study.arms.items():
        wanted = getattr(arm, "shots", 0)
        for i, source in enumerate(study.items):
            if wanted > source.shot_pool:
                yield (
                    ("arms", name, "shots"),
                    f"arm {name!r} draws {wanted} shots, but items[{i}].shot_pool is {source.shot_pool}",
                )


def _text(study: Study) -> Iterator[Problem]:
    """Find why a chain before the answer cannot be set."""
    mediation, where = study.mediation, ("mediation", "text")
    if mediation is None or not mediation.text or len(study.arms) < 2:
        return
    if len(set(mediation.text)) < len(mediation.text):
        yield where, f"names one twice: {', '.join(mediation.text)}"
    contrast = mediation.contrast or study.contrast
    names = [name for name in (contrast.treated, contrast.control) if name in study.arms]
    arms = [study.arms[name] for name in names]
    if not any(isinstance(arm, ChainOfThoughtArm) and arm.reasoning != "asked_only" for arm in arms):
        yield where, f"sets the chain before the answer, and neither {' nor '.join(map(repr, names))} has one"
    for name, arm in zip(names, arms, strict=True):
        if isinstance(arm.temperature, TemperatureRange):
            yield where, f"runs arm {name!r} again, whose temperature is drawn for each trial: give it one"
    outcome = next((o for o in study.outcomes if o.name == study.effect.outcome), None)
    if outcome is not None and outcome.judge and isinstance(outcome.judge.model, EndpointSettings):
        yield where, f"scores {outcome.name!r} anew, which a judge behind an endpoint gives: leave it out"


def _no_arm(study: Study, name: str) -> str:
    return f"names the arm {name!r}; the arms are {', '.join(study.arms)}{did_you_mean(name, study.arms)}"


# Which of the keys of `effect` say nothing under a design, and why.
_IDLE = {
    "paired": (
        ("method", "estimand", "propensity"),
        "each item is compared with itself; an audit has settings of its own",
    ),
    "randomized": (("method", "propensity"), "the lot makes the arms comparable"),
    "instrument": (("method", "estimand", "propensity"), "two-stage least squares is the method"),
    "front_door": (("method", "estimand", "propensity"), "the mediators are what is regressed"),
    "rollout": (("method", "estimand", "propensity"), "routes are compared over time"),
}


def _design(study: Study) -> Iterator[Problem]:
    effect, audit = study.effect, study.effect.audit
    name = study.design_name
    yield from _design_options(study)
    idle, why = _IDLE.get(name, ((), ""))
    for key in idle:
        silent = [type(effect).model_fields[key].get_default(call_default_factory=True)]
        if name == "randomized":
            silent.append("naive")
        if getattr(effect, key) not in silent:
            yield ("effect", key), f"has no meaning with design: {name}, where {why}: leave it out"
    if name == "paired" and effect.confounders and audit is None:
        why = "each item is compared with itself, and there is no audit"
        yield ("effect", "confounders"), f"has no meaning with design: paired, where {why}: leave it out"
    if name == "observational":
        yield from _options(effect, ("effect",))
    if audit is not None:
        if name != "paired":
            why = f"an audit needs every item under both arms, and the design is {name}"
            yield ("effect", "audit"), f"{why}: leave it out, or set design: paired"
        if audit.draws == 1:
            yield ("effect", "audit", "draws"), "an audit needs at least two draws, or 0 for none"
        yield from _options(audit, ("effect", "audit"))


def _design_options(study: Study) -> Iterator[Problem]:
    """Let a design of a log judge its options, each at its key."""
    from whyprompt.effects.designs.make import DESIGNS, refuse_options

    name, given = study.design_name, study.design_options
    if not isinstance(study.design, str) and len(study.design) != 1:
        yield ("design",), f"is one design with its options: one of {', '.join(DESIGNS)}"
        return
    if name not in DESIGNS:
        return
    try:
        refuse_options(name, given)
    except EstimationError as error:
        odd = [key for key in given if repr(key) in error.message]
        yield ("design", name, *odd[:1]), error.message + (f": {error.hint}" if error.hint else "")


def _options(settings: EffectSettings | AuditSettings, at: tuple[str, ...]) -> Iterator[Problem]:
    """Let a method that is written with options judge them, each at its key."""
    from whyprompt.effects.methods.make import make_method

    chosen, name = settings.model_dump()["method"], settings.method_name
    known = make_method(name).estimands
    # Overlap weights define their own population: the estimand is not asked of them.
    if settings.estimand not in known and known != ("ato",):
        yield (*at, "estimand"), f"{settings.estimand} is not what {name} estimates: {', '.join(known)}"
    if isinstance(chosen, str):
        return

    def refusal(method: dict[str, Any]) -> str | None:
        try:
            make_method(method)
        except EstimationError as error:
            return error.message + (f": {error.hint}" if error.hint else "")
        return None

    why = refusal(chosen)
    if why is not None:
        alone = [k for k, v in settings.method_options.items() if refusal({name: {k: v}}) == why]
        yield (*at, "method", *((name, alone[0]) if alone else ())), why


# ----------------------------------------------------------------------------------------------- reading
def load_study(path: str | Path, *, code: bool = True) -> Study:
    """Read and validate a study file. Nothing that it names is imported or run yet.

    Parameters
    ----------
    path : str or Path
        A ``.yaml``, ``.yml`` or ``.toml`` file.
    code : bool, default True
        Whether the study may import Python code, as an outcome with ``call`` does when the study is run.

    Returns
    -------
    Study
        Relative paths of item files are resolved against the study file's folder.

    Raises
    ------
    StudyError
        If the file is missing, is not valid YAML or TOML, or a key is unknown or malformed; the message
        names the file, the line and the key. Or if it imports code and may not.
    """
    path = Path(path)
    data, lines = read_source(path)
    if data is None:
        raise StudyError(f"{path} is empty", hint="whyprompt init writes one that runs")
    if not isinstance(data, dict):
        raise StudyError(
            f"{path}: a study is a mapping of keys, not {type(data).__name__}",
            hint="whyprompt init writes one that runs",
        )
    try:
        study = Study.model_validate(data)
    except ValidationError as error:
        raise StudyError(_explain(path, data, lines, error)) from None
    study._source = path, lines  # noqa: SLF001 - its own module
    calls: list[Problem] = [
        (("outcomes", i, *at), f"imports and runs {call!r}, and code is not allowed here")
        for i, outcome in enumerate(study.outcomes)
        for at, call in outcome.calls
    ]
    if calls and not code:
        raise study.refusal(calls)
    return _resolve_paths(study, path.parent)


def _resolve_paths(study: Study, folder: Path) -> Study:
    items = [
        s.model_copy(update={"path": str((folder / s.path).resolve())}) if hasattr(s, "path") else s
        for s in study.items
    ]
    model = study.model
    if isinstance(model, ModelSettings):
        model = model.model_copy(update={"name": _resolved(model.name, folder)})
    outcomes = list(study.outcomes)
    for i, outcome in enumerate(outcomes):
        if outcome.judge is not None and isinstance(outcome.judge.model, str):
            judge = outcome.judge.model_copy(update={"model": _resolved(outcome.judge.model, folder)})
            outcomes[i] = outcome.model_copy(update={"judge": judge})
    return study.model_copy(update={"items": items, "model": model, "outcomes": outcomes})


def _resolved(name: str, folder: Path) -> str:
    """Give a model's name; of a path, seen from the study's folder, the whole path."""
    return str((folder / Path(name).expanduser()).resolve()) if name.startswith((".", "/", "~")) else name


def _refuse(problems: Iterable[Problem]) -> None:
    """Raise problems as pydantic's own, each at its key."""
    found = [
        InitErrorDetails(
            type=PydanticCustomError("study", "{message}", {"message": message}), loc=location, input=None
        )
        for location, message in problems
    ]
    if found:
        raise ValidationError.from_exception_data("Study", found)


_MOST_LINES = 20


def _explain(path: Path, data: dict[str, Any], known: Lines, error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        # pydantic puts the chosen member of a union (its tag or class) into the location: not a key.
        at, message = plain_problem(problem, Study)
        location = known_location(data, known, [part for part in at if part != "[key]"])
        key = ".".join(str(p) for p in location) or "study"
        lines.append(f"{path}:{line_of(known, location)}: {key}: {message}")
    lines = list(dict.fromkeys(lines))
    if len(lines) > _MOST_LINES:
        lines = [*lines[:_MOST_LINES], f"and {len(lines) - _MOST_LINES} more"]
    return "\n".join(lines)


def study_json_schema() -> dict[str, Any]:
    """Give the JSON schema of a study file, for editors.

    Returns
    -------
    dict
        A JSON Schema (draft 2020-12).
    """
    schema = with_short_forms(Study.model_json_schema())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "whyprompt study"}
