"""What nuisance models are: the default learners, those that have a name, and any of scikit-learn's."""

from __future__ import annotations

import ast
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from whyprompt.effects.methods.boosted import BOOSTED, LogitAndTrees, RidgeAndTrees
from whyprompt.errors import EstimationError
from whyprompt.stats.influence import with_intercept
from whyprompt.stats.propensity import fit_logistic
from whyprompt.stats.threads import one_openmp_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

LINEAR, LOGIT = "linear", "logit"
# Packages whose learners may be written as text; a text of any other would run whatever it names.
_PACKAGES = ("sklearn", "lightgbm", "xgboost", "catboost")
# Rows that one model is fitted to at most: beyond, more of them cost time and show nothing more.
ROWS = 200_000
_EXAMPLE = {
    "outcome_model": "sklearn.ensemble.RandomForestRegressor(n_estimators=200)",
    "propensity": "sklearn.ensemble.RandomForestClassifier(min_samples_leaf=10)",
    "effect_model": "sklearn.linear_model.LassoCV()",
}
_NAMED = {
    "outcome_model": "boosted, linear",
    "propensity": "boosted, logit",
    "effect_model": "stacked, linear, forest, x_learner",
}


def score_column(propensity: object) -> str | None:
    """Give the column that `propensity` names, None where it is a classifier or the text of one.

    >>> score_column("logged_share"), score_column("boosted")
    ('logged_share', None)
    """
    return propensity if isinstance(propensity, str) and not _is_learner(propensity) else None


def score_model(propensity: Any) -> Any:  # noqa: ANN401 - any scikit-learn classifier, or its name
    """Give the classifier that `propensity` is, its name, or None where it is a column."""
    if not isinstance(propensity, str):
        if propensity is not None:
            refuse_learner(propensity, "propensity")
        return propensity
    if propensity == BOOSTED:
        return LogitAndTrees()
    if propensity == LOGIT or not _is_learner(propensity):
        return LOGIT if propensity == LOGIT else None
    return read_learner(propensity, "propensity")


def _is_learner(text: str) -> bool:
    return text in {BOOSTED, LOGIT} or text.partition(".")[0] in _PACKAGES


class OutcomeModel(Protocol):
    """What is asked of an outcome model: scikit-learn's ``fit`` and ``predict``."""

    def fit(self, X: Any, y: Any) -> object:  # noqa: ANN401 - scikit-learn's own types
        """Fit to the rows of one arm."""

    def predict(self, X: Any) -> Any:  # noqa: ANN401 - scikit-learn's own types
        """Predict the outcome."""


class _LeastSquares:
    def fit(self, X: Floats, y: Floats) -> None:
        if X.shape[1] >= len(y):
            raise EstimationError(
                f"outcome_model='linear' has {X.shape[1]} columns for the {len(y)} rows of an arm that it is"
                " fitted to",
                hint="outcome_model='boosted', which is penalised, or fewer confounders",
            )
        spread = X.std(axis=0)
        self.centre, self.scale = X.mean(axis=0), np.where(spread > 0, spread, 1.0)
        self.coef = np.linalg.lstsq(with_intercept((X - self.centre) / self.scale), y, rcond=1e-10)[0]

    def predict(self, X: Floats) -> Floats:
        return np.asarray(with_intercept((X - self.centre) / self.scale) @ self.coef)


class Fitted(NamedTuple):
    """An outcome model that was fitted, by its name."""

    name: str
    learner: Any

    def predict(self, X: Floats) -> Floats:
        """Predict, shape (m,); what is not one finite number for each row is refused."""
        with one_openmp_thread():
            try:
                predicted = np.asarray(self.learner.predict(X), dtype=float).reshape(-1)
            except (ValueError, TypeError, np.linalg.LinAlgError) as error:
                raise _failed("outcome_model", self.name, error) from None
        if predicted.shape != (len(X),) or not np.isfinite(predicted).all():
            raise EstimationError(
                f"outcome_model {self.name} gives predictions that are not one finite number for each row",
                hint="outcome_model='boosted' or 'linear'",
            )
        return predicted


def learn_outcome(
    X: Floats, y: Floats, test: Floats, model: OutcomeModel | str | None, random_state: int = 0
) -> Floats:
    """Predict the outcome of the rows `test`, shape (m,), by a model fitted to one arm's rows `X` and `y`.

    The model is cloned, and left as it was. One whose predictions are no finite numbers is refused.
    """
    return fit_outcome(X, y, model, random_state).predict(test)


def fit_outcome(X: Floats, y: Floats, model: OutcomeModel | str | None, random_state: int = 0) -> Fitted:
    """Fit a model to one arm's rows `X` and outcomes `y`; it is cloned, and left as it was."""
    if not len(y):
        raise EstimationError(
            "a fold leaves an arm without rows to fit its outcome model", hint="use fewer folds"
        )
    if not X.shape[1]:
        # With a known propensity nothing else need be adjusted for.
        from sklearn.dummy import DummyRegressor

        return Fitted("mean", DummyRegressor().fit(X, y))
    fitted: Any
    if model == LINEAR:
        fitted = _LeastSquares()
    elif isinstance(model, RidgeAndTrees):
        fitted = RidgeAndTrees(model.share)
    elif model is None or model == BOOSTED:
        fitted = RidgeAndTrees()
    else:
        from sklearn.base import clone

        fitted = clone(read_learner(model, "outcome_model") if isinstance(model, str) else model)
    # Least squares cost little of all of them.
    rows = slice(None) if model == LINEAR else _at_most(len(y), random_state)
    with one_openmp_thread():
        try:
            fitted.fit(X[rows], y[rows])
        except (ValueError, TypeError, np.linalg.LinAlgError) as error:
            raise _failed("outcome_model", _name(model), error) from None
    return Fitted(_name(model), fitted)


def learn_score(
    X: Floats,
    treated: Bools,
    test: Floats,
    model: Any,  # noqa: ANN401 - any scikit-learn classifier, or "logit"
    *,
    names: Sequence[str] | None = None,
    random_state: int = 0,
) -> Floats:
    """Predict the propensity of the rows `test`, shape (m,), by a model fitted to the rows `X`.

    The model is cloned, and left as it was. Raises `SeparatedError` for ``"logit"`` where covariates tell the
    arms apart, and `EstimationError` where a model gives no probabilities.
    """
    return fit_score(X, treated, model, names=names, random_state=random_state)(test)


def fit_score(
    X: Floats,
    treated: Bools,
    model: Any,  # noqa: ANN401 - any scikit-learn classifier, or "logit"
    *,
    names: Sequence[str] | None = None,
    random_state: int = 0,
) -> Callable[[Floats], Floats]:
    """Fit a model to rows, and give what predicts the propensity of others; see `learn_score`."""
    if model == LOGIT:
        fit = fit_logistic(X, treated, names=names)
        return lambda test: np.asarray(0.5 * (1.0 + np.tanh(0.5 * (fit.coef[0] + test @ fit.coef[1:]))))
    from sklearn.base import clone

    fitted = clone(model)
    rows = _at_most(len(treated), random_state)

    def attempted(done: Callable[[], Any]) -> Any:  # noqa: ANN401 - what it gives
        with one_openmp_thread():
            try:
                return done()
            except (ValueError, TypeError, np.linalg.LinAlgError) as error:
                raise _failed("propensity", _name(model), error) from None

    def predicted(test: Floats) -> Floats:
        found = attempted(
            lambda: np.asarray(fitted.predict_proba(test), dtype=float)[:, list(fitted.classes_).index(1)]
        )
        if not np.isfinite(found).all():
            raise EstimationError(
                f"propensity {_name(model)} gives probabilities that are not finite numbers",
                hint="leave it out for the default, or choose another classifier",
            )
        return np.asarray(found)

    attempted(lambda: fitted.fit(X[rows], treated[rows].astype(np.int64)))
    return predicted


def read_learner(text: str, where: str) -> Any:  # noqa: ANN401 - any learner
    """Make the learner that a text names with its options, as a study file or a command line has it.

    Examples
    --------
    >>> read_learner("sklearn.linear_model.Ridge(alpha=2.0)", "outcome_model")
    Ridge(alpha=2.0)
    """
    hint = (
        f"one of: {_NAMED[where]}; or a class of {', '.join(_PACKAGES)} with its options: {_EXAMPLE[where]}"
    )
    try:
        node = ast.parse(text.strip(), mode="eval").body
        called = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
        path = ast.unparse(called.func)
        options = {str(one.arg): ast.literal_eval(one.value) for one in called.keywords}
    except (SyntaxError, ValueError):
        raise EstimationError(f"{where} {text!r} cannot be read", hint=hint) from None
    if called.args or "None" in options:
        raise EstimationError(f"{where} {text!r}: options are written with their names", hint=hint)
    module, _, name = path.rpartition(".")
    if module.partition(".")[0] not in _PACKAGES:
        raise EstimationError(f"{where} {text!r} is not known", hint=hint)
    try:
        kind = getattr(import_module(module), name)
        if not isinstance(kind, type):
            # A function does what it does before it is seen that it makes no learner.
            raise EstimationError(f"{where} {text!r} is no class", hint=hint)
        made = kind(**options)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise EstimationError(f"{where} {text!r} cannot be made: {error}", hint=hint) from None
    refuse_learner(made, where)
    return made


def refuse_learner(model: object, where: str) -> None:
    """Refuse what cannot be fitted, or does not predict what is needed there."""
    wanted = "predict_proba" if where == "propensity" else "predict"
    missing = [name for name in ("fit", wanted) if not hasattr(model, name)]
    if missing or isinstance(model, type):
        what = "is a class, not an object" if isinstance(model, type) else f"has no {missing[0]}"
        raise EstimationError(
            f"{where} {_name(model)} {what}",
            hint=f"a scikit-learn {'regressor' if wanted == 'predict' else 'classifier'}, such as"
            f" {_EXAMPLE[where]}",
        )


def _at_most(n: int, random_state: int) -> Any:  # noqa: ANN401 - a slice or rows
    if n <= ROWS:
        return slice(None)
    return np.sort(np.random.default_rng(random_state).choice(n, ROWS, replace=False))


def _name(model: object) -> str:
    if isinstance(model, str):
        return repr(model)
    return model.__name__ if isinstance(model, type) else type(model).__name__


def _failed(where: str, name: str, error: Exception) -> EstimationError:
    first = str(error).strip().partition("\n")[0]
    return EstimationError(
        f"{where} {name} could not be fitted: {first}",
        hint="leave it out for the default, or choose another",
    )
