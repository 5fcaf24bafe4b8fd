"""Does what the README, the tutorial and the how-to pages say, command by command, in an empty folder.

    python tests/docs/follow.py            # every page, as it stands: half an hour, since models run
    python tests/docs/follow.py --quick    # small stand-ins for models and studies: as `make test` does
    python tests/docs/follow.py docs/tutorial.md

The folder has what a clone has and the pages name: `studies` and `tests`. What is not done is said, with the
reason. With `--quick` a tiny random model stands in for the embedded one, and `studies/small.yaml` for larger
studies; commands and code are the page's own.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "tutorial.md", ROOT / "docs" / "which-design.md"]
PAGES += sorted((ROOT / "docs" / "howto").glob("*.md"))
# What a page's reader does that is not done here, by how the command begins or what stands in it, and why.
NOT_DONE = {
    "git clone": "this is a clone",
    "cd whyprompt": "this is a clone",
    "make ": "continuous integration runs it",
    "pip install": "continuous integration installs the wheel",
    ". .venv/bin/activate": "the environment is this one",
    "python -m venv": "`make crosscheck` makes it",
    ".venv-crosscheck/bin/python": "`make crosscheck` makes it",
    "export WHYPROMPT_CROSSCHECK_PYTHON": "`make crosscheck` makes it",
    "--check cross-check": "DoWhy and CausalML live in an environment of their own: `make crosscheck`",
    "studies/endpoint.yaml": "it asks a server: tests/endpoints/test_commands.py has one",
    "--gpus-per-worker": "it needs a cluster",
    "ray://": "it needs a cluster",
    "--workers": "it starts processes; tests/workers does",
    "path/to/": "a file of the reader's own",
    "old_small.eval": "logs of the reader's own",
    "schema > ": "it writes into the repository; tests/test_study.py holds it",
}
# Of code: what it needs that is not here.
NOT_RUN = {
    "cross_check(": "DoWhy and CausalML live in an environment of their own: `make crosscheck`",
    "import nnsight": "neither it nor TransformerLens is installed here; tests/mediation/test_interop.py",
}
PEERS = ROOT / ".venv-crosscheck" / "bin" / "python"
MINUTES = ("few_shot.yaml", "chain_of_thought.yaml")


def steps(page: Path) -> list[tuple[str, str]]:
    """Give the commands and Python blocks of a page in their order, and the studies that it writes out."""
    text = page.read_text(encoding="utf-8")
    found: list[tuple[str, str]] = []
    for language, code in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if language == "python" or (not language and code.startswith("import whyprompt")):
            found.append(("python", code))
        elif language == "yaml" and all(f"{key}:" in code for key in ("name", "question", "items", "arms")):
            found.append(("study", code))
        elif not language:
            lines = [line.partition("  #")[0].strip() for line in code.replace("\\\n", " ").splitlines()]
            found += [
                ("command", part.strip())
                for line in lines
                if re.match(r"(whyprompt|make|git|pip|python|export|\.)[ v]", line)
                or line.startswith(".venv")
                for part in line.split("&&")
            ]
    return found


def why_not(kind: str, text: str, place: Path) -> str:
    """Say why a step is not done; empty where it is."""
    reasons = NOT_DONE if kind == "command" else NOT_RUN
    if re.search(r"\b(direct\.eval|trials\.parquet)", text) and not (place / "direct.eval").exists():
        return "it reads real logs, which are not here: `shared/logs` beside the repository"
    if PEERS.exists():
        reasons = {part: why for part, why in reasons.items() if "cross" not in part or "cross" not in why}
    return next((why for part, why in reasons.items() if part in text), "")


def command(words: list[str]) -> tuple[int, str, str]:
    """Run the command as a shell would: its exit code and what it prints."""
    from whyprompt.cli import main

    before, sys.argv = sys.argv, words
    out, err, code = io.StringIO(), io.StringIO(), 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1 if stop.code else 0
    finally:
        sys.argv = before
    return code, out.getvalue(), err.getvalue()


def lay_out(place: Path, model: Path | None) -> None:
    """Put into an empty folder what a clone has; with a `model` its studies are small, and on that model."""
    (place / "tests").symlink_to(ROOT / "tests", target_is_directory=True)
    # "A study of your own", to the other pages, is the one that this page writes out.
    (own,) = (text for kind, text in steps(ROOT / "docs" / "howto" / "study.md") if kind == "study")
    (place / "study.yaml").write_text(on_model(own, model), encoding="utf-8")
    for arm in ("direct", "cot"):
        for log in (ROOT.parent / "shared" / "logs" / "inspect_ai").glob(f"*gsm8k-{arm}*.eval"):
            shutil.copy(log, place / f"{arm}.eval")
    studies = place / "studies"
    if model is None:
        studies.symlink_to(ROOT / "studies", target_is_directory=True)
        return
    studies.mkdir()
    small = (ROOT / "studies" / "small.yaml").read_text(encoding="utf-8")
    for name in ("small.yaml", *MINUTES):
        text = small.replace("name: small", f"name: {name.removesuffix('.yaml')}")
        (studies / name).write_text(on_model(text, model), encoding="utf-8")


def on_model(study: str, model: Path | None) -> str:
    return study if model is None else f"{study}\nmodel: {{name: '{model}', device: cpu, threads: 1}}\n"


def follow(page: Path, place: Path, model: Path | None) -> list[dict[str, object]]:
    """Do a page's steps in `place`, the working folder; raise at the first that fails."""
    import whyprompt as wp

    space: dict[str, object] = {"__name__": "page"}
    load, done = wp.load_model, []
    os.environ.setdefault("WHYPROMPT_CROSSCHECK_PYTHON", str(PEERS))
    if model is not None:
        wp.load_model = lambda *_a, **_k: load(str(model))
    try:
        for kind, text in steps(page):
            started, why, out = time.monotonic(), why_not(kind, text, place), ""
            if kind == "study":
                why = "it lies there as study.yaml" if page.name == "study.md" else "one to read"
            elif kind == "python":
                code = compile(text, page.name, "exec")
                if not why:
                    with contextlib.redirect_stdout(io.StringIO()) as printed:
                        exec(code, space)  # noqa: S102 - the page's own code
                    out = printed.getvalue()
            elif not why:
                stand_in = (
                    f" --model {model}" if model is not None and text.startswith("whyprompt init") else ""
                )
                status, out, err = command(shlex.split(text + stand_in))
                assert status == 0, f"{page.name}: {text}\n{out}{err}"
            seconds = time.monotonic() - started
            done.append({"kind": kind, "text": text, "why": why, "out": out, "seconds": seconds})
    finally:
        wp.load_model = load
    return done


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a script, too


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path)
    parser.add_argument("--quick", action="store_true", help="small stand-ins for models and studies")
    asked = parser.parse_args()
    pages = [page.resolve() for page in asked.pages] or PAGES
    with tempfile.TemporaryDirectory() as folder:
        model = None
        if asked.quick:
            sys.path.insert(0, str(ROOT / "tests"))
            from conftest import make_tiny_model

            model = make_tiny_model(Path(folder) / "model")
        for page in pages:
            place = Path(folder) / page.stem
            place.mkdir()
            os.chdir(place)
            lay_out(place, model)
            say(f"== {page.relative_to(ROOT)}")
            for step in follow(page, place, model):
                first = str(step["text"]).strip().splitlines()[0]
                said = f"not done: {step['why']}" if step["why"] else f"{step['seconds']:.1f} s"
                say(f"  {first[:100]}\n      {said}")


if __name__ == "__main__":
    main()
