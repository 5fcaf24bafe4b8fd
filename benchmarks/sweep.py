# ruff: noqa: ANN401  # the peers ship no types
"""Sweeps over all attention heads: whyprompt beside TransformerLens, nnsight and pyvene, in one run.

The same pairs of prompts, the same weights in float32, one thread, the same quantity: the log-probability
of the answer after prompt 1 with one head's output z taken from prompt 0 at the answer positions, for every
head. Each tool runs in a process of its own, with the interpreter of an environment that has it, and reports
its processor seconds a pair, the memory it took beyond the loaded model, and all its numbers; the driver
compares them. A peer runs as `rows` (all heads of a layer as rows of one batch) where it can, and as `loop`
(one forward a head) with --loops; the ratio is to the fastest.

The arithmetic bound counts the floating-point operations of both clean runs and of one token a head and
answer position from the head's layer up, the vocabulary's logits included, at the fastest rate that this
machine's matrix products reach, on shapes from 256 to 2,048 and on the model's own. (What two prompts begin
with is counted twice, and run once.)

    python -m venv /tmp/tl && /tmp/tl/bin/pip install torch==2.13.0 transformer-lens==4.3.0
    python -m venv /tmp/nn && /tmp/nn/bin/pip install torch==2.13.0 nnsight==0.8.1
    python -m venv /tmp/pv && /tmp/pv/bin/pip install torch==2.13.0 pyvene==0.1.8
    python benchmarks/sweep.py --peer transformer_lens=/tmp/tl/bin/python --peer nnsight=/tmp/nn/bin/python \
        --peer pyvene=/tmp/pv/bin/python
    python benchmarks/sweep.py --pairs 8                  # whyprompt alone, against the bound
    python benchmarks/sweep.py --kinds nie both attention_row knockout
    python benchmarks/sweep.py --kinds nie neurons blocks suffix  # rows of other sites, of more tokens
    python benchmarks/sweep.py --kinds nie own_products   # the same sweep, by the products that the peers use
    python benchmarks/sweep.py --half nie both --pairs 16 # float32, and the same weights kept in bfloat16
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from arithmetic import fastest_rate, processor, shape_of

# Peers import this file in their own environments: nothing but the standard library at the top.

MIB = 1 << 20


# ---- measuring ------------------------------------------------------------------------------


def status(key: str) -> float:
    """Read one line of /proc/self/status, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {key}")


def measured(run: Any, pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Run all pairs after a warm-up on the first layer of one; memory counts from before the warm-up."""
    resident = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # starts the peak afresh
    run(pairs[:1], 1)
    cpu, wall = time.process_time(), time.perf_counter()
    numbers = run(pairs, None)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {
        "cpu_s": cpu / len(pairs),
        "wall_s": wall / len(pairs),
        "extra_mib": status("VmHWM") - resident,
        "numbers": numbers,
    }


# ---- the tools; each gives log-probabilities, pairs x heads -----------------------------------


def load(folder: str) -> Any:
    import torch
    import transformers

    library: Any = transformers
    library.utils.logging.disable_progress_bar()
    model = library.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    for p in model.parameters():
        p.sum()  # weights mapped from their file count as the model's memory, not as a tool's
    return model


def shape(config: Any) -> tuple[int, int]:
    return config.num_hidden_layers, config.num_attention_heads


# Sites of a layer: as many neurons as the embedded model has heads, and one of every kind of block.
BESIDE = {
    "neurons": [f"neuron {{}}.{k}" for k in range(9)],
    "blocks": ["attn {}", "mlp {}", "resid {}"],
}


def gold(logits: Any, answer: list[int]) -> list[float]:
    """Log-probability of the answer from logits (rows, answer, vocabulary)."""
    import torch

    picked = torch.log_softmax(logits.float(), -1).gather(
        -1, torch.tensor(answer)[None, :, None].expand(len(logits), -1, -1)
    )
    return [float(v) for v in picked[..., 0].double().sum(-1)]


def run_whyprompt(folder: str, kind: str) -> Any:
    from whyprompt import head_sweep, knockout_sweep, site_sweep
    from whyprompt.mediation import PromptPair

    model = load(folder)
    heads = shape(model.config)[1]
    if kind == "own_products":
        from whyprompt._lean import products

        vars(products)["_ratio"] = lambda _threads: 0.0

    def run(pairs: list[dict[str, Any]], first: int | None) -> list[list[float]]:
        given = [
            PromptPair(
                item_id=str(i),
                ids0=p["ids0"],
                ids1=p["ids1"],
                answer_ids=p["answer"],
                segments1={"inserted": (tuple(p["inserted"]),)},
            )
            for i, p in enumerate(pairs)
        ]
        options: dict[str, Any] = {}
        if first is not None:
            options["heads"] = [(layer, h) for layer in range(first) for h in range(heads)]
        if kind == "knockout":
            crossed = knockout_sweep(model, given, "inserted", **options).y_cut
            assert crossed is not None
            return [list(row) for row in crossed.tolist()]
        if kind != "both":
            options["directions"] = ("nie",)
        if kind == "attention_row":
            options["mediator"] = "attention_row"
        if kind in BESIDE:
            layers = shape(model.config)[0] if first is None else first
            sites = [name.format(at) for at in range(layers) for name in BESIDE[kind]]
            crossed = site_sweep(model, given, sites, directions=("nie",)).y10
            assert crossed is not None
            return [list(row) for row in crossed.tolist()]
        if kind == "suffix":
            options["tokens"] = "suffix"
        crossed = head_sweep(model, given, **options).y10
        assert crossed is not None
        values: list[list[float]] = crossed.tolist()
        return values

    return run


def run_transformer_lens(folder: str, kind: str) -> Any:
    import torch
    import transformers
    from transformer_lens.model_bridge import TransformerBridge

    hf = load(folder)
    layers, heads = shape(hf.config)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(Path(folder) / "tokenizer"))
    bridge = TransformerBridge.boot_transformers(folder, hf_model=hf, tokenizer=tokenizer, device="cpu")
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(layers)]

    def view(z: Any) -> Any:
        return z if z.ndim == 4 else z.view(*z.shape[:2], heads, -1)

    def run(pairs: list[dict[str, Any]], first: int | None) -> list[list[float]]:
        out = []
        for p in pairs:
            n = len(p["answer"])
            base, source = (torch.tensor([p[k] + p["answer"][:-1]]) for k in ("ids1", "ids0"))
            _, cache = bridge.run_with_cache(source, names_filter=lambda name: name in names)
            row = []
            for name in names[:first]:
                z0 = view(cache[name])[0, -n:].clone()
                groups = [list(range(heads))] if kind == "rows" else [[h] for h in range(heads)]
                for group in groups:

                    def patch(z: Any, hook: Any, z0: Any = z0, group: Any = group, n: int = n) -> Any:  # noqa: ARG001
                        z = z.clone()
                        for i, h in enumerate(group):
                            view(z)[i, -n:, h] = z0[:, h]
                        return z

                    logits = bridge.run_with_hooks(
                        base.expand(len(group), -1), return_type="logits", fwd_hooks=[(name, patch)]
                    )
                    row += gold(logits[:, -n:], p["answer"])
            out.append(row)
        return out

    return run


def run_nnsight(folder: str, kind: str) -> Any:
    import torch
    import transformers
    from nnsight import LanguageModel, save

    hf = load(folder)
    layers, heads = shape(hf.config)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(Path(folder) / "tokenizer"))
    model = LanguageModel(hf, tokenizer=tokenizer)
    gpt2 = hf.config.model_type == "gpt2"
    outs = [
        model.transformer.h[i].attn.c_proj if gpt2 else model.model.layers[i].self_attn.o_proj
        for i in range(layers)
    ]

    def run(pairs: list[dict[str, Any]], first: int | None) -> list[list[float]]:
        result = []
        for p in pairs:
            n = len(p["answer"])
            base, source = (torch.tensor([p[k] + p["answer"][:-1]]) for k in ("ids1", "ids0"))
            with torch.no_grad(), model.trace(source):
                z0 = save([o.input[0, -n:].clone() for o in outs])
            d = z0[0].shape[-1] // heads
            row = []
            for layer in range(layers)[:first]:
                groups = [list(range(heads))] if kind == "rows" else [[h] for h in range(heads)]
                for group in groups:
                    with torch.no_grad(), model.trace(base.expand(len(group), -1), logits_to_keep=n):
                        z = outs[layer].input
                        for i, h in enumerate(group):
                            z[i, -n:, h * d : (h + 1) * d] = z0[layer][:, h * d : (h + 1) * d]
                        logits = save(model.output.logits)
                    row += gold(logits[:, -n:], p["answer"])
            result.append(row)
        return result

    return run


def run_pyvene(folder: str, _kind: str) -> Any:
    import torch
    from pyvene import IntervenableConfig, IntervenableModel, RepresentationConfig, VanillaIntervention

    hf = load(folder)
    layers, heads = shape(hf.config)

    def run(pairs: list[dict[str, Any]], first: int | None) -> list[list[float]]:
        out = []
        for p in pairs:
            n = len(p["answer"])
            base, source = ({"input_ids": torch.tensor([p[k] + p["answer"][:-1]])} for k in ("ids1", "ids0"))
            t1, t0 = base["input_ids"].shape[1], source["input_ids"].shape[1]
            row = []
            for layer in range(layers)[:first]:
                where = RepresentationConfig(layer, "head_attention_value_output", "h.pos", n)
                patched = IntervenableModel(IntervenableConfig([where], VanillaIntervention), hf)
                for h in range(heads):
                    # interventions x (head, position) x batch x units
                    places = [[[[[h]], [list(range(t - n, t))]]] for t in (t0, t1)]
                    with torch.no_grad():
                        _, got = patched(base, [source], {"sources->base": tuple(places)})
                    row += gold(got.logits[:, -n:], p["answer"])
            out.append(row)
        return out

    return run


TOOLS = {
    "whyprompt": run_whyprompt,
    "transformer_lens": run_transformer_lens,
    "nnsight": run_nnsight,
    "pyvene": run_pyvene,
}


def work(tool: str, kind: str, folder: str, pairs: str, out: str) -> None:
    """Run one tool in this process and write what it found."""
    from importlib import metadata

    import torch

    torch.set_num_threads(1)
    with torch.no_grad():
        report = measured(TOOLS[tool](folder, kind), json.loads(Path(pairs).read_text()))
    report["version"] = metadata.version(tool.replace("_", "-"))
    Path(out).write_text(json.dumps(report))


def work_half(kind: str, folder: str, pairs: str, rounds: str, out: str) -> None:
    """Sweep in float32, and with the same weights kept in bfloat16, by turns in this process."""
    import copy

    import numpy as np
    import torch
    import transformers

    from whyprompt import head_sweep
    from whyprompt.mediation import PromptPair

    torch.set_num_threads(1)
    library: Any = transformers
    library.utils.logging.disable_progress_bar()
    half = library.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, attn_implementation="sdpa"
    ).eval()
    models = {"float32": copy.deepcopy(half).float(), "bfloat16": half}
    given = [
        PromptPair(item_id=str(i), ids0=p["ids0"], ids1=p["ids1"], answer_ids=p["answer"])
        for i, p in enumerate(json.loads(Path(pairs).read_text()))
    ]
    directions: Any = {"nie": ("nie",), "both": ("nie", "pure_nie")}[kind]
    seconds: dict[str, list[float]] = {name: [] for name in models}
    sweeps = {}
    for model in models.values():
        head_sweep(model, given[:1], heads=[(0, 0)], directions=directions)
    for _ in range(int(rounds)):
        for name, model in models.items():
            start = time.process_time()
            sweeps[name] = head_sweep(model, given, directions=directions)
            seconds[name].append((time.process_time() - start) / len(given))
    off = []
    for name in ("y10", "y01"):
        one, other = (getattr(sweep, name) for sweep in sweeps.values())
        if one is not None:
            off.append(np.abs(one - other))
    apart = np.stack(off)
    effects = np.abs(np.concatenate([sweeps["float32"].nie]))
    weights = {
        name: sum(p.nbytes for p in {id(p): p for p in model.parameters()}.values()) / MIB
        for name, model in models.items()
    }
    report = {
        "seconds": seconds,
        "rows": int(apart.size),
        "largest": float(apart.max()),
        "largest_mean": float(np.abs(sweeps["float32"].nie.mean(0) - sweeps["bfloat16"].nie.mean(0)).max()),
        "rms": float(np.sqrt((apart**2).mean())),
        "beyond": int((apart > 1e-4).sum()),
        "effect": float(np.sqrt((effects**2).mean())),
        "floor": sweeps["bfloat16"].floor,
        "notes": sweeps["bfloat16"].notes,
        "weights_mib": weights,
    }
    Path(out).write_text(json.dumps(report))


# ---- the driver -----------------------------------------------------------------------------


def make_pairs(folder: Path, count: int, tokens: int) -> list[dict[str, Any]]:
    """Make grade-school sums of about so many tokens: the question alone, and with a worked solution."""
    from transformers import AutoTokenizer

    from whyprompt import pair_from_text
    from whyprompt.study import ReasoningGymSource
    from whyprompt.trials.items.load import load_items

    tokenizer = AutoTokenizer.from_pretrained(folder)
    source = ReasoningGymSource(source="reasoning_gym", dataset="gsm_symbolic", size=1600)
    out = []
    for item in load_items([source], seed=0).items:
        if not item.answer.isdigit() or len(item.answer) > 1 or not item.solution:
            continue
        last = item.solution.split("####")[0].strip().splitlines()[-1]
        ask, cue = ("question", item.question.splitlines()[0][-220:]), ("cue", "\nAnswer: ")
        pair = pair_from_text(
            tokenizer,
            item_id=item.item_id,
            prompt0=[ask, cue],
            prompt1=[ask, ("inserted", "\n" + last), cue],
            answer=item.answer,
        )
        if abs(len(pair.ids1) - tokens) <= 8 and pair.n_answer == 1:
            out.append(
                {
                    "ids0": list(pair.ids0),
                    "ids1": list(pair.ids1),
                    "answer": list(pair.answer_ids),
                    "inserted": pair.segments1["inserted"][0],
                }
            )
        if len(out) == count:
            return out
    raise SystemExit(f"only {len(out)} items have about {tokens} tokens; ask for fewer --pairs")


def save_models(where: Path, names: list[str]) -> dict[str, Path]:
    """Write each model to a folder of its own, the embedded model's tokenizer beside it."""
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    from whyprompt.trials.models.locate import locate_model

    embedded, _ = locate_model("embedded")
    tokenizer = AutoTokenizer.from_pretrained(embedded)
    out = {}
    for name in names:
        folder = where / name
        if name == "smollm2":
            folder.mkdir()
            for file in embedded.iterdir():
                (folder / file.name).symlink_to(file)
        else:
            torch.manual_seed(0)
            # Twelve layers of twelve heads, as GPT-2; wider initial weights, so that heads matter.
            GPT2LMHeadModel(GPT2Config(initializer_range=0.06)).save_pretrained(folder)
        tokenizer.save_pretrained(folder / "tokenizer")
        out[name] = folder
    return out


def flops(folder: Path, pairs: list[dict[str, Any]], kind: str = "nie") -> float:
    """Count the operations a pair that the scheme cannot avoid, in one kind of sweep."""
    shape = shape_of(folder)
    total = 0.0
    for p in pairs:
        n = tokens = len(p["answer"])
        if kind == "suffix":
            alike = zip(reversed(p["ids0"]), reversed(p["ids1"]), strict=False)
            tokens += next(k for k, (a, b) in enumerate(alike) if a != b) - 1
        t0, t1 = (len(p[k]) + n - 1 for k in ("ids0", "ids1"))
        # A knockout is of one prompt; the others need a clean run of both.
        for t in (t1,) if kind == "knockout" else (t0, t1):
            total += shape.tokens(range(t)) + n * shape.logits
        rows = len(BESIDE.get(kind, range(shape.heads)))
        for base in (t0, t1) if kind == "both" else (t1,):
            total += rows * sum(shape.row(layer, base, tokens, n) for layer in range(shape.layers))
    return total / len(pairs)


def launch(python: str, tool: str, kind: str, folder: Path, pairs: Path, where: Path) -> dict[str, Any]:
    out = where / "out.json"
    out.unlink(missing_ok=True)
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "MKL_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    command = [python, __file__, "--work", tool, kind, str(folder), str(pairs), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode or not out.exists():
        return {"error": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    report: dict[str, Any] = json.loads(out.read_text())
    return report


def half_precision(kind: str, folder: Path, files: Path, rounds: int, where: Path, bound: float) -> None:
    """Run float32 and bfloat16 by turns in a process of their own, and show both."""
    out = where / "half.json"
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    command = [sys.executable, __file__, "--work-half", kind, str(folder), str(files), str(rounds), str(out)]
    subprocess.run(command, env=environment, check=True)
    found = json.loads(out.read_text())
    least = {name: min(values) for name, values in found["seconds"].items()}
    middle = {name: sorted(values)[len(values) // 2] for name, values in found["seconds"].items()}
    print(f"  {kind}, weights in bfloat16, {rounds} rounds by turns, processor seconds a pair:")
    for name, value in least.items():
        print(
            f"    {name:9} least {value:.3f}, median {middle[name]:.3f}, {value / bound:.2f} x the bound, "
            f"weights {found['weights_mib'][name]:.0f} MiB"
        )
    print(
        f"    {least['float32'] / least['bfloat16']:.2f} times as fast by the least, "
        f"{middle['float32'] / middle['bfloat16']:.2f} by the medians"
    )
    print(
        f"    {found['rows']} rows differ by {found['largest']:.1e} at most, {found['rms']:.1e} rms, "
        f"{found['beyond']} by more than 1e-4; heads' means by {found['largest_mean']:.1e} at most "
        f"(effects {found['effect']:.2g} rms; the floor printed is {found['floor']:.1e})"
    )
    print("    " + found["notes"][1], flush=True)


def show_half(
    args: argparse.Namespace, folder: Path, pairs: list[dict[str, Any]], files: Path, where: Path
) -> None:
    """Show all that is asked for of one model in half precision."""
    rate = fastest_rate()
    print(f"\n{folder.name}: {args.tokens} tokens or so, one thread of")
    print(f"  {processor()}, {rate / 1e9:.0f} Gflop/s in float32")
    for kind in args.half:
        half_precision(kind, folder, files, args.rounds, where, flops(folder, pairs, kind) / rate)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--work-half", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument(
        "--half", nargs="+", default=[], choices=["nie", "both"], help="sweeps to run in half precision too"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of --half")
    parser.add_argument("--peer", action="append", default=[], metavar="TOOL=PYTHON")
    parser.add_argument("--models", nargs="+", default=["smollm2", "gpt2"], choices=["smollm2", "gpt2"])
    parser.add_argument("--kinds", nargs="+", default=["nie"])
    parser.add_argument("--pairs", type=int, default=64, help="pairs that whyprompt runs")
    parser.add_argument("--peer-pairs", type=int, default=1, help="how many of them the peers run")
    parser.add_argument("--tokens", type=int, default=86)
    parser.add_argument("--loops", action="store_true", help="run the peers one head at a time too")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.work:
        work(*args.work)
        return
    if args.work_half:
        work_half(*args.work_half)
        return
    import numpy as np

    report: dict[str, Any] = {"pairs": args.pairs, "peer_pairs": args.peer_pairs, "models": {}}
    with tempfile.TemporaryDirectory() as name:
        where = Path(name)
        folders = save_models(where, args.models)
        pairs = make_pairs(folders[args.models[0]] / "tokenizer", args.pairs, args.tokens)
        files = {}
        for key, count in (("ours", args.pairs), ("peers", args.peer_pairs)):
            files[key] = where / f"{key}.json"
            files[key].write_text(json.dumps(pairs[:count]))
        for model, folder in folders.items():
            if args.half:
                show_half(args, folder, pairs, files["ours"], where)
                continue
            rows: dict[str, Any] = {}
            mine = launch(sys.executable, "whyprompt", args.kinds[0], folder, files["ours"], where)
            if "error" in mine:
                raise SystemExit(mine["error"])
            rate = fastest_rate()
            bound = flops(folder, pairs, args.kinds[0]) / rate
            print(f"\n{model}: {len(mine['numbers'][0])} heads, {args.tokens} tokens or so, one thread of")
            print(f"  {processor()}; arithmetic bound {bound:.3f} s a pair ({rate / 1e9:.0f} Gflop/s)")
            mine["bound_s"] = bound
            show("whyprompt " + args.kinds[0], mine, against(mine))
            for kind in args.kinds[1:]:
                other = launch(sys.executable, "whyprompt", kind, folder, files["ours"], where)
                if "error" not in other:
                    other["bound_s"] = flops(folder, pairs, kind) / rate
                show("whyprompt " + kind, other, against(other))
                rows["whyprompt " + kind] = other
            peers = dict(p.split("=", 1) for p in args.peer)
            for tool, python in peers.items():
                for kind in ["loop"] if tool == "pyvene" else ["rows", "loop"][: 1 + args.loops]:
                    theirs = launch(python, tool, kind, folder, files["peers"], where)
                    if "error" not in theirs:
                        a, b = np.array(theirs["numbers"]), np.array(mine["numbers"][: args.peer_pairs])
                        theirs["largest_difference"] = float(np.abs(a - b).max())
                        theirs["times_faster"] = theirs["cpu_s"] / mine["cpu_s"]
                    show(f"{tool} {theirs.get('version', '')} {kind}", theirs, differs(theirs))
                    rows[f"{tool} {kind}"] = theirs
            rows["whyprompt"] = mine | {"rate": rate}
            ratios = [r["times_faster"] for r in rows.values() if "times_faster" in r]
            if ratios:
                print(f"  whyprompt is {min(ratios):.0f} times as fast as the fastest peer")
            report["models"][model] = {
                k: {a: b for a, b in v.items() if a != "numbers"} for k, v in rows.items()
            }
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))


def against(mine: dict[str, Any]) -> str:
    return "" if "error" in mine else f"{mine['cpu_s'] / mine['bound_s']:.2f} x its bound"


def differs(theirs: dict[str, Any]) -> str:
    if "error" in theirs:
        return ""
    return f"{theirs['times_faster']:.0f} x slower, differs by {theirs['largest_difference']:.1g} at most"


def show(name: str, result: dict[str, Any], note: str) -> None:
    if "error" in result:
        print(f"  {name:34} did not run: {result['error'][:200]}", flush=True)
        return
    print(
        f"  {name:34} {result['cpu_s']:8.2f} s a pair, {result['extra_mib']:6.0f} MiB extra, {note}",
        flush=True,
    )


if __name__ == "__main__":
    main()
