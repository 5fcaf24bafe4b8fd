"""A study: the question, its items, arms, outcomes, design and seeds, as one validated model.

A study is written in YAML or TOML. Every key is checked; an unknown one is refused with the file and the
line it stands on. :meth:`Study.trial_spec` gives the part of a study that decides what its trials are: a
change there makes new trials, a change elsewhere (the question, the graph, the estimator) does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from whyprompt._contradictions import Problem, contradictions, unreadable_values
from whyprompt._sources import SourceText, read_source
from whyprompt._study_items import (
    BUILTIN_COLUMNS,
    BUILTIN_OUTCOMES,
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
from whyprompt.errors import StudyError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "Arm",
    "AuditSettings",
    "ChainOfThoughtArm",
    "Columns",
    "Contrast",
    "DirectArm",
    "EffectSettings",
    "FewShotArm",
    "FileSource",
    "FormatArm",
    "GenerationSettings",
    "Gsm8kSource",
    "HubSource",
    "ItemSource",
    "MediationSettings",
    "ModelSettings",
    "NaturalInstructionsSource",
    "OutcomeSettings",
    "ReasoningGymSource",
    "Seeds",
    "Study",
    "TemperatureRange",
    "TemplateArm",
    "load_study",
    "study_json_schema",
]


# -------------------------------------------------------------------------------------------- arms
class TemperatureRange(Strict):
    """A continuous treatment: each trial draws its temperature uniformly from ``[low, high]``."""

    low: Annotated[float, Field(ge=0)]
    high: Annotated[float, Field(gt=0, le=5)]

    @model_validator(mode="after")
    def _ordered(self) -> TemperatureRange:
        if self.low >= self.high:
            raise ValueError("'low' must be below 'high'")
        return self


_Temperature = Annotated[float, Field(ge=0, le=5)]


class _Arm(Strict):
    system: str | None = Field(default=None, description="System prompt. Default: the chat template's own.")
    instruction: str | None = Field(default=None, description="Text put before the question.")
    cue: str | None = Field(default=None, description="Text after which the answer is scored.")
    chat: Literal["auto", "always", "never"] = Field(
        default="auto", description="Whether the tokenizer's chat template wraps the prompt."
    )
    temperature: Annotated[
        Annotated[_Temperature, Tag("(number)")] | Annotated[TemperatureRange, Tag("(range)")],
        # Judged as what it is written as: a message then speaks of that alone.
        Discriminator(lambda v: "(range)" if isinstance(v, dict | TemperatureRange) else "(number)"),
    ] = Field(default=0.0, description="Sampling temperature of completions; 0 is greedy.")


class DirectArm(_Arm):
    """The question, then the cue."""

    kind: Literal["direct"]


class FewShotArm(_Arm):
    """Worked examples before the question, from items that are not in the study."""

    kind: Literal["few_shot"]
    shots: Annotated[int, Field(ge=1)] = 3
    draw: Literal["fixed", "per_rep", "per_item"] = Field(
        default="fixed",
        description="The same shots always; anew for each repetition; or anew for each item and repetition.",
    )
    with_solution: bool = Field(default=False, description="Show each example's worked solution.")


class ChainOfThoughtArm(_Arm):
    """Reasoning before the answer."""

    kind: Literal["chain_of_thought"]
    reasoning: Literal["instruction", "worked", "cut", "other", "generated"] = Field(
        default="instruction",
        description=(
            "instruction: only asked for; worked: the item's own solution inserted; cut: the same, cut "
            "before the answer first appears; other: another item's solution; generated: the model's own, "
            "made first."
        ),
    )
    ask: str = "Let's think step by step."


class FormatArm(_Arm):
    """An instruction format."""

    kind: Literal["format"]
    format: Literal["plain", "role", "question_answer", "json"]


class TemplateArm(_Arm):
    """A template of the user's own (jinja2, sandboxed)."""

    kind: Literal["template"]
    template: str
    shots: Annotated[int, Field(ge=0)] = 0


Arm = Annotated[
    DirectArm | FewShotArm | ChainOfThoughtArm | FormatArm | TemplateArm, Field(discriminator="kind")
]


# -------------------------------------------------------------------------------- model and outcomes
class ModelSettings(Strict):
    """Which model, and how it runs."""

    name: str = Field(
        default="embedded",
        description="'embedded', a local folder, a .gguf file, or a name on the hub. Code that a model "
        "brings along is never run.",
    )
    revision: str | None = None
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = Field(
        default="auto",
        description="auto is float32, also for a checkpoint in half precision: its weights then take twice "
        "the memory of their files.",
    )
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None


class OutcomeSettings(Strict):
    """One outcome: a built-in scorer by name, or a Python callable by import path."""

    name: Name
    call: str | None = Field(
        default=None, pattern=r"^[\w.]+:[\w.]+$", description="'package.module:function'"
    )
    kind: Literal["continuous", "binary", "ordinal"] | None = None
    needs: Literal["completion", "scores"] = "completion"
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known(self) -> OutcomeSettings:
        if self.name in BUILTIN_COLUMNS:
            raise ValueError(f"{self.name!r} is a column of the trial table itself: choose another name")
        if self.call is None and self.name not in BUILTIN_OUTCOMES:
            raise ValueError(
                f"no built-in outcome {self.name!r}: choose one of {', '.join(BUILTIN_OUTCOMES)}, "
                "or give 'call: package.module:function'"
            )
        return self


# In a file the name of a built-in outcome stands for the whole entry; the published schema says so.
_SHORT = {"type": "string", "enum": list(BUILTIN_OUTCOMES), "description": "A built-in outcome by name."}


class _ShortOutcome:
    """Adds the short form to the schema of an outcome."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> dict[str, Any]:  # noqa: ANN401 - pydantic's protocol
        return {"anyOf": [_SHORT, handler(core)]}


Outcome = Annotated[OutcomeSettings, _ShortOutcome]


class GenerationSettings(Strict):
    """How completions are made, for the outcomes that read one."""

    max_new_tokens: Annotated[int, Field(ge=1)] = 32
    max_reasoning_tokens: Annotated[int, Field(ge=1)] = 160
    stop: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=lambda: ["\n"])


# ------------------------------------------------------------------------------------------ analysis
Method = Literal[
    "naive",
    "nearest",
    "optimal",
    "full",
    "kernel",
    "subclass",
    "cem",
    "ipw",
    "overlap",
    "entropy",
    "aipw",
]


class Contrast(Strict):
    """Two arms, compared as ``treated`` minus ``control``."""

    treated: str
    control: str


class AuditSettings(Strict):
    """A confounded assignment drawn from a study with both arms, held against the paired truth."""

    assignment: dict[str, float] = Field(
        description="Log-odds of the treated arm for each standard deviation of an item covariate."
    )
    intercept: float = 0.0
    method: Method = "nearest"
    estimand: Literal["ate", "att", "atc"] = "att"
    caliper: Annotated[float, Field(gt=0)] | None = None
    replace: bool = False
    exact: list[str] = Field(default_factory=list)
    draws: Annotated[int, Field(ge=0, le=100_000)] = 200


class EffectSettings(Strict):
    """The external level: which contrast, on which outcome, by which estimator."""

    outcome: str = "log_prob"
    contrast: Contrast | None = None
    estimand: Literal["ate", "att", "atc"] = "ate"
    method: Method = Field(default="nearest", description="Estimator where the design is observational.")
    caliper: Annotated[float, Field(gt=0)] | None = None
    exact: list[str] = Field(default_factory=list, description="Columns on which matched rows are equal.")
    by: str | None = "task_type"
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    confounders: list[str] = Field(default_factory=list)
    audit: AuditSettings | None = None


class MediationSettings(Strict):
    """The internal level: which contrast, on how many items, through which mediator."""

    contrast: Contrast | None = None
    mediator: Literal["head_output"] = "head_output"
    tasks: list[str] | None = Field(
        default=None, min_length=1, description="Task families to sweep; all by default."
    )
    items_per_task: Annotated[int, Field(ge=1)] = 8
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    placebo: str | None = Field(default=None, description="An arm whose sweep is the noise floor.")
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.8, description="Share of the total effect that the smallest set of heads is to carry."
    )
    max_heads: Annotated[int, Field(ge=1)] = Field(default=10, description="The most heads in that set.")
    segment: str | None = Field(
        default=None,
        description=(
            "Segment of the prompt, attention to which is the measured mediator of the statistical side. "
            "Default: what the treated arm's prompt has and the control's has not (shots, reasoning), else "
            "the question."
        ),
    )
    candidates: Annotated[int, Field(ge=1)] = Field(
        default=16, description="Heads of the ranking among which the search chooses."
    )
    contrasts: list[Contrast] = Field(
        default_factory=list, description="Further contrasts to sweep, reported beside the first."
    )


_Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Seeds(Strict):
    """Every source of chance, seeded apart."""

    items: _Seed = 0
    shots: _Seed = 0
    sampling: _Seed = 0
    analysis: _Seed = 0


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
    model: ModelSettings = ModelSettings()
    arms: dict[Name, Arm] = Field(min_length=1)
    outcomes: list[Outcome] = Field(
        default_factory=lambda: [OutcomeSettings(name="log_prob"), OutcomeSettings(name="exact_match")],
        min_length=1,
    )
    covariates: tuple[Literal["question_tokens", "question_perplexity"], ...] = Field(
        default=("question_tokens", "question_perplexity"),
        strict=False,  # a file has lists, not tuples
        description="Measured for every item, beside task_type, difficulty and the source's own.",
    )
    generation: GenerationSettings = GenerationSettings()
    reps: Annotated[int, Field(ge=1, le=10_000, description="Repetitions, each with seeds of its own.")] = 1
    graph: str | None = Field(default=None, description="Causal graph, as 'a -> b; b -> c'.")
    design: Literal["paired", "randomized", "observational"] = Field(
        default="paired",
        description=(
            "paired: every item under every arm; randomized: one arm for each item and repetition, drawn "
            "with equal chances; observational: the arms were chosen by others, as in a log."
        ),
    )
    effect: EffectSettings = EffectSettings()
    mediation: MediationSettings | None = None
    seeds: Seeds = Seeds()

    @field_validator("outcomes", mode="before")
    @classmethod
    def _short_outcomes(cls, value: Any) -> Any:  # noqa: ANN401 - raw input, whatever the file holds
        if isinstance(value, list):
            return [{"name": v} if isinstance(v, str) else v for v in value]
        return value

    @model_validator(mode="before")
    @classmethod
    def _readable(cls, value: Any) -> Any:  # noqa: ANN401 - raw input, whatever the file holds
        _refuse(unreadable_values(value))
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        _refuse(contradictions(self))
        return self

    # Where the study was read is no part of what it says: two of the same settings are equal.
    _source: SourceText | None = PrivateAttr(default=None)

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
                place = f"{self._source.path}:{self._source.line_of(location)}"
            lines.append(f"{place}: {key}: {message}")
        return StudyError("\n".join(lines))

    @property
    def contrast(self) -> Contrast:
        """The contrast of the external level: as given, else the second arm against the first."""
        if self.effect.contrast is not None:
            return self.effect.contrast
        arms = list(self.arms)
        if len(arms) < 2:
            raise StudyError(
                f"study {self.name!r} has one arm ({arms[0]}): there is nothing to compare",
                hint="add a second arm",
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
    source = read_source(Path(path))
    if source.data is None:
        raise StudyError(f"{source.path} is empty", hint="a study names its question, items and arms")
    if not isinstance(source.data, dict):
        raise StudyError(f"{source.path}: a study is a mapping of keys, not {type(source.data).__name__}")
    try:
        study = Study.model_validate(source.data)
    except ValidationError as error:
        raise StudyError(_explain(source, error)) from None
    study._source = source  # noqa: SLF001 - its own module
    calls = [(i, o.call) for i, o in enumerate(study.outcomes) if o.call is not None]
    if calls and not code:
        raise study.refusal(
            (("outcomes", i, "call"), f"imports and runs {call!r}, and code is not allowed here")
            for i, call in calls
        )
    return _resolve_paths(study, source.path.parent)


def _resolve_paths(study: Study, folder: Path) -> Study:
    items = [
        s.model_copy(update={"path": str((folder / s.path).resolve())}) if hasattr(s, "path") else s
        for s in study.items
    ]
    model = study.model
    if model.name.startswith((".", "/", "~")):
        model = model.model_copy(update={"name": str((folder / Path(model.name).expanduser()).resolve())})
    return study.model_copy(update={"items": items, "model": model})


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


def _explain(source: SourceText, error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        # pydantic puts the chosen member of a union (its tag or class) into the location: not a key.
        location = source.known_location(problem["loc"])
        key = ".".join(str(p) for p in location) or "study"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "unknown key"
        elif problem["type"] == "missing":
            message = "required key is missing"
        lines.append(f"{source.path}:{source.line_of(location)}: {key}: {message}")
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
    schema = Study.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "whyprompt study"}
