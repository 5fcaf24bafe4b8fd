"""Logs of the tests' own, and what reads them."""

from __future__ import annotations

import json

import pytest

from whyprompt.trials.readers import find
from whyprompt.trials.readers.record import Log, LoggedTrial, Stated

ITEMS = [f"How much is {k} and {k + 1}?" for k in range(10)]


class Toy:
    """Reads {"toy": {...}, "trials": [...]} as `Log` and `LoggedTrial` have their fields."""

    name = "toy"

    def sniff(self, _path, head):
        return 0.9 if head.startswith(b'{"toy"') else 0.0

    def read(self, path):
        content = json.loads(path.read_text())
        about = content["toy"]
        stated = tuple(Stated(**one) for one in about.pop("stated", ()))

        def trials():
            for one in content["trials"]:
                yield LoggedTrial(**{**one, "choices": tuple(one.get("choices", ()))})

        yield Log(path=path, format="toy", trials=trials, stated=stated, **about)


@pytest.fixture
def toy(monkeypatch):
    own = find.readers()
    monkeypatch.setattr(find, "readers", lambda: (Toy(), *own))


@pytest.fixture
def log(tmp_path, toy):  # noqa: ARG001 - what is written is read by it
    def write(name, scores, *, arm=None, settings=None, about=None, **fields):
        """Write a log of one trial an item, or as `scores` has by item; `fields` are by item or shared."""
        trials = []
        for k, value in enumerate(scores):
            one = {"item": str(k), "question": ITEMS[k], "target": str(2 * k + 1)}
            one["scores"] = value if isinstance(value, dict) else {"match": value}
            if value is None:
                one |= {"scores": {"match": None}, "error": "TimeoutError: 30 s"}
            one |= {f: v[k] if isinstance(v, list) else v for f, v in fields.items()}
            if arm is not None:
                one.setdefault("prompt", f"{ITEMS[k]} {arm}")
            trials.append(one)
        of_arm = {} if arm is None else {"prompt": {"task_args.arm": arm}}
        content = {"toy": {"settings": {**of_arm, **(settings or {})}, **(about or {})}, "trials": trials}
        path = tmp_path / name
        path.write_text(json.dumps(content))
        return path

    return write
