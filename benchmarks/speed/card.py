"""Examples per second on one GPU at a BERT-base's size: layerstill beside TextBrewer, a plain loop, the student alone.

    python benchmarks/speed/card.py --record FILE [--data GLUE --model FOLDER] [--textbrewer PYTHON] [--quick]

BERT-base shape with random weights, 12 layers to 6, hidden states and attention maps of all layers, soft targets and
labels. With `--data` and `--model` the pairs are RTE's, cut by that model's tokenizer; else random tokens of RTE's
lengths. Every arm is a process of its own and they take turns, so ratios are formed within a round; rounds go on until
`--seconds` are over. The record is written after every arm; an arm that fails is in it with its error, and the others
go on. Of layerstill's arms the second of two epochs is timed, of the others what follows a warm-up; the clock is read
twice, each time when the GPU has done everything.

Bars: `live` 3 times TextBrewer in TF32 at batches of 32 and 5 times at 128, `cached` 0.9 of `alone`, and `alone` 40 %
of the matmul peak at 256. `plain` is a second yardstick, without a bar.

`--quick` measures a tiny model for a round, which says that everything runs.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from compare import accelerator, processor, ratios, run
from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    set_seed,
)

from layerstill import Task
from layerstill.atomic import write_json
from layerstill.recipe import StudentSpec
from layerstill.students.build import build_student
from layerstill.training.accounting import matmul_peak
from layerstill.training.arguments import dtype_of

WORKLOAD = "hidden+attention"
ARMS = {
    32: ["textbrewer dynamic tf32", "plain", "live", "cached", "alone", "plain alone"],
    128: ["textbrewer dynamic tf32", "plain", "live", "cached", "alone"],
    256: ["alone"],
}
"""By batch size."""
QUICK_ARMS = {8: ["textbrewer dynamic tf32", "plain", "live", "cached", "alone"], 16: ["alone"]}
BARS = [
    (32, "live", "textbrewer dynamic tf32", 3.0),
    (128, "live", "textbrewer dynamic tf32", 5.0),
    (32, "cached", "alone", 0.9),
    (128, "cached", "alone", 0.9),
]
PEAK_BAR = (256, "alone", 0.4)
LENGTHS = (MEDIAN, SPREAD) = (57, 0.5)
"""Of RTE's pairs in tokens: the median, and the standard deviation of the logarithm."""
LONGEST = 128


def prepare(place: Path, args: argparse.Namespace) -> int:
    """Teacher, student, tokenizer and tokenised pairs in `place`; how many pairs."""
    set_seed(0)
    sizes: dict[str, int] = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    if args.quick:
        sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
    config = BertConfig(**sizes, intermediate_size=4 * sizes["hidden_size"], num_labels=2, vocab_size=30522)
    teacher = BertForSequenceClassification(config)
    student = build_student(teacher, sizes["num_hidden_layers"] // 2, StudentSpec(), seed=0)
    tokenizer = AutoTokenizer.from_pretrained(args.model) if args.model else nameless()
    for name, model in (("teacher", teacher), ("student", student)):
        model.save_pretrained(place / name)
        tokenizer.save_pretrained(place / name)
    rows = rte(args.data, tokenizer) if args.data and args.model else random_pairs(200 if args.quick else 2490)
    (place / "rows.json").write_text(json.dumps(rows), "utf-8")
    AutoModelForSequenceClassification.from_pretrained(place / "student")  # it can be read
    return len(rows)


def nameless() -> PreTrainedTokenizerFast:
    """A tokenizer that is good for padding and no more."""
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")


def rte(glue: Path, tokenizer: Any) -> list[dict[str, Any]]:
    """The training pairs of RTE."""
    split = Task.glue("rte", glue).splits["train"]
    found = []
    for texts, label in zip(split.texts, split.labels, strict=True):
        row = tokenizer(*texts, truncation=True, max_length=LONGEST)
        types = row.get("token_type_ids") or [0] * len(row["input_ids"])
        found.append({"input_ids": row["input_ids"], "token_type_ids": types, "label": label})
    return found


def random_pairs(count: int) -> list[dict[str, Any]]:
    """Random tokens, as long as the pairs of RTE are."""
    rng = torch.Generator().manual_seed(0)
    lengths = (MEDIAN * (SPREAD * torch.randn(count, generator=rng)).exp()).round().clamp(12, LONGEST).long()
    found = []
    for number, length in enumerate(lengths.tolist()):
        ids = torch.randint(1000, 30000, (length,), generator=rng).tolist()
        types = [int(place >= 2 * length // 3) for place in range(length)]
        found.append({"input_ids": ids, "token_type_ids": types, "label": number % 2})
    return found


def measured(place: Path, pairs: int, args: argparse.Namespace, record: dict[str, Any]) -> None:
    """Round after round of all arms into `record`, which is written after each of them."""
    begun, longest = time.monotonic(), 0.0
    arms = QUICK_ARMS if args.quick else ARMS
    has_peer = not subprocess.run([args.textbrewer, "-c", "import textbrewer"], capture_output=True).returncode
    record["textbrewer"] = "there" if has_peer else "not installed"
    for round_ in range(1 if args.quick else args.rounds):
        if round_ and time.monotonic() - begun + longest > args.seconds:
            break
        started = time.monotonic()
        for size, names in arms.items():
            # Those of the warm-up are others than those that are timed.
            args.steps = min(args.most_steps, pairs // size - args.warmup)
            for arm in names:
                if arm.startswith("textbrewer") and not has_peer:
                    continue
                try:
                    found = run(place, WORKLOAD, arm, round_, args, size)
                except SystemExit as error:
                    found = {"error": str(error)}
                rounds = record["batches"].setdefault(str(size), [])
                rounds.extend({} for _ in range(round_ + 1 - len(rounds)))
                rounds[round_][arm] = found
                print(size, arm, found.get("error") or f"{found['examples_per_second']:.1f} examples/s", flush=True)
                record["bars"] = bars(record["batches"])
                write_json(args.record, record)
        longest = max(longest, time.monotonic() - started)


def bars(batches: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What is wanted beside what was found; medians over the rounds in which both arms were measured."""
    told: list[dict[str, Any]] = []
    for size, arm, other, wanted in BARS:
        rounds = [r for r in batches.get(str(size), []) if all("seconds" in r.get(name, {}) for name in (arm, other))]
        if rounds:
            found = statistics.median(ratios(rounds, arm, other))
            told.append({"batch": size, "what": f"{arm} / {other}", "wanted": wanted, "found": found})
    size, arm, wanted = PEAK_BAR
    if shares := [r[arm]["share_of_peak"] for r in batches.get(str(size), []) if "seconds" in r.get(arm, {})]:
        told.append({"batch": size, "what": f"{arm} / peak", "wanted": wanted, "found": statistics.median(shares)})
    return [one | {"holds": one["found"] >= one["wanted"]} for one in told]


def main() -> None:
    """Prepare, measure, say what holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="GLUE folder with RTE")
    parser.add_argument("--model", type=Path, help="a model whose tokenizer cuts RTE")
    parser.add_argument("--textbrewer", default=sys.executable, help="Python that has TextBrewer")
    parser.add_argument("--rounds", type=int, default=3, help="at most so many")
    parser.add_argument("--seconds", type=float, default=240, help="no round begins that would end after so many")
    parser.add_argument("--most-steps", type=int, default=40, help="steps that are timed, where there are enough pairs")
    parser.add_argument(
        "--warmup", type=int, default=3, help="steps before that, of the arms that are not layerstill's"
    )
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.quick:
        args.most_steps, args.warmup = 4, 1
    where, kind = torch.device("cuda" if torch.cuda.is_available() else "cpu"), dtype_of("auto")
    record: dict[str, Any] = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "accelerator": accelerator(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "matmul_peak_tflops": matmul_peak(where, kind, 512 if args.quick else None) / 1e12,
        "precision": str(kind).removeprefix("torch."),
        "pairs": "RTE" if args.data and args.model else "random",
        "batches": {},
    }
    with tempfile.TemporaryDirectory() as place:
        measured(Path(place), prepare(Path(place), args), args, record)
    for bar in record["bars"]:
        verdict = "holds " if bar["holds"] else "MISSED"
        print(f"{verdict} batch {bar['batch']}: {bar['what']} {bar['found']:.2f}, wanted {bar['wanted']}")
    failed = [
        arm for rounds in record["batches"].values() for r in rounds for arm, found in r.items() if "error" in found
    ]
    if failed:
        raise SystemExit(f"failed: {', '.join(sorted(set(failed)))}; the errors are in {args.record}")


if __name__ == "__main__":
    main()
