"""Where the real logs lie, and how a test reads one."""

import os
from importlib import import_module
from pathlib import Path
from statistics import fmean

import pytest

HERE = Path(__file__).resolve()


@pytest.fixture(scope="session")
def shared_logs():
    """Real logs of other tools: beside $WHYPROMPT_SHARED, or in shared/logs beside the repository."""
    own = os.environ.get("WHYPROMPT_SHARED")
    folder = Path(own).parent / "logs" if own else HERE.parents[4] / "shared" / "logs"
    if not folder.is_dir():
        pytest.skip(f"no real logs at {folder}")
    return folder


@pytest.fixture(scope="session")
def reader():
    """Give a reader by the name of its module."""
    return lambda name: import_module(f"whyprompt.trials.readers.{name}")


@pytest.fixture(scope="session")
def one_log(reader):
    """Read the one log of a file, and its trials."""

    def read(name, path):
        (log,) = reader(name).read(path)
        return log, list(log.trials())

    return read


@pytest.fixture(scope="session")
def recomputed():
    """Give each stated mean with the mean, and number, of the trials that it is of."""

    def means(log, trials):
        for stated in log.stated:
            mine = [t for t in trials if stated.where.items() <= _flat(log.settings, t.settings).items()]
            scores = [t.scores[stated.scorer] for t in mine if t.scores.get(stated.scorer) is not None]
            yield stated, fmean(scores), len(scores)

    return means


def _flat(*settings):
    return {path: value for one in settings for values in one.values() for path, value in values.items()}
