"""What distillation costs as models, texts and data grow, computed from configurations: the tables of docs/scale.md.

    python benchmarks/scale.py

Floating-point operations are those that `result.json` counts (layerstill.training.accounting): layers only, padding
left out. Cache sizes are those by which `--cache auto` decides, in 16 bits.
"""

import torch
from transformers import AutoModelForSequenceClassification, BertConfig, BertModel

from layerstill.families import layers_of, shape_of
from layerstill.knowledge.capture import CapturePlan
from layerstill.training.accounting import forward_flops
from layerstill.training.teacher_cache import Contents

MODELS = {
    "MiniLM-L6, 384 wide, 6 to 3": (BertConfig(hidden_size=384, intermediate_size=1536, num_hidden_layers=6), 3),
    "BERT-base, 768 wide, 12 to 6": (BertConfig(), 6),
    "BERT-large, 1024 wide, 24 to 6": (
        BertConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16),
        6,
    ),
}
LENGTHS = (32, 128, 512)
WORDS, TEXT_BATCH = 3e9, 1024
"""Tokens of one pass over running text, and blocks of 128 of them in a step."""
GPU_RATES = (25, 50, 100)
"""Of training, in TFLOP/s: assumptions."""


def trained_weights(config: BertConfig, layers: int) -> int:
    """Parameters of a student with so many layers, embeddings included."""
    with torch.device("meta"):
        return BertModel(BertConfig(**{**config.to_diff_dict(), "num_hidden_layers": layers})).num_parameters()


def gflop(config: BertConfig, layers: int, tokens: int) -> float:
    """Of a forward pass over one example."""
    with torch.device("meta"):
        modules = layers_of(AutoModelForSequenceClassification.from_config(config))[:layers]
    return forward_flops(modules, shape_of(config).inner, 1, tokens) / 1e9


def contents(layers: int) -> dict[str, Contents]:
    """What recipes keep of a teacher with so many layers."""
    third = range(layers // 3, layers + 1, layers // 3)
    some = frozenset(third)
    return {
        "logits (kd)": Contents(CapturePlan(logits=True), frozenset()),
        "means of all layers but the last, logits (rail-kd-l)": Contents(
            CapturePlan(logits=True), frozenset((k, "mean") for k in range(1, layers))
        ),
        "q, k of the last layer (att-kl, last)": Contents(
            CapturePlan(attention=frozenset([layers])),
            frozenset(),
            frozenset((layers, name) for name in ("query", "key")),
        ),
        "tokens of three layers (hid-seq)": Contents(CapturePlan(hidden=some), frozenset()),
        "tokens and q, k of three layers (tinybert)": Contents(
            CapturePlan(hidden=some, attention=some),
            frozenset(),
            frozenset((k, name) for k in third for name in ("query", "key")),
        ),
    }


def main() -> None:
    print("| models | tokens | student's step | teacher, live | teacher's share | teacher in 10 epochs, cached |")
    print("|---|---|---|---|---|---|")
    for name, (config, depth) in MODELS.items():
        for tokens in LENGTHS:
            student, teacher = 3 * gflop(config, depth, tokens), gflop(config, config.num_hidden_layers, tokens)
            live, cached = teacher / (student + teacher), teacher / 10 / (student + teacher / 10)
            print(f"| {name} | {tokens} | {student:.2f} | {teacher:.2f} | {live:.0%} | {cached:.1%} |")
    print("\n| one q k^T more | " + " | ".join(f"{n} tokens" for n in LENGTHS) + " |")
    print("|---" * (1 + len(LENGTHS)) + "|")
    for name, (config, _) in MODELS.items():
        width = config.hidden_size
        shares = (2 * n * n * width / (gflop(config, 1, n) * 1e9) for n in LENGTHS)
        print(f"| {name.split(', ')[0]} | " + " | ".join(f"{share:.1%}" for share in shares) + " |")
    print(
        "\n| kept of each example | "
        + " | ".join(f"{n.split(',')[0]}, {t} tokens" for n in MODELS for t in (32, 128))
        + " |"
    )
    print("|---|" + "---|" * (2 * len(MODELS)))
    for kind in contents(6):
        cells = []
        for config, _ in MODELS.values():
            kept = contents(config.num_hidden_layers)[kind]
            for tokens in (32, 128):
                size = kept.bytes_per_example(tokens, config.hidden_size, config.hidden_size, 3, "bf16")
                cells.append(f"{size / 1e3:,.3g} kB" if size < 1e6 else f"{size / 1e6:,.3g} MB")
        print(f"| {kind} | {' | '.join(cells)} |")
    print("\n| examples x epochs, BERT-base 12 to 6, 128 tokens | operations | 250 GFLOP/s (two cores) | 50 TFLOP/s |")
    print("|---|---|---|---|")
    config, depth = MODELS["BERT-base, 768 wide, 12 to 6"]
    student, teacher = 3 * gflop(config, depth, 128), gflop(config, 12, 128)
    for examples, epochs in ((10_000, 3), (100_000, 3), (400_000, 3), (10_000_000, 1)):
        for how, cost in (("live", epochs * teacher), ("cached", teacher)):
            if how == "cached" and epochs == 1:
                continue
            total = examples * (epochs * student + cost)
            hours = [total / rate / 3600 for rate in (250, 50_000)]
            times = " | ".join(f"{h:,.1f} h" if h >= 1 else f"{60 * h:.0f} min" for h in hours)
            print(f"| {examples:,} x {epochs}, {how} | {total / 1e6:,.2f} PFLOP | {times} |")
    print(f"\n| GPUs | {' | '.join(f'{rate} TFLOP/s each' for rate in GPU_RATES)} | gradients of a process, in all |")
    print("|---" * (2 + len(GPU_RATES)) + "|")
    blocks = WORDS / 128
    exchanged = 2 * 4 * trained_weights(config, depth) * blocks / TEXT_BATCH / 1e12
    for gpus in (1, 8, 64):
        hours = (blocks * (student + teacher) / (rate * 1000) / gpus / 3600 for rate in GPU_RATES)
        times = " | ".join(f"{h:,.1f} h" if h >= 1 else f"{60 * h:.0f} min" for h in hours)
        print(f"| {gpus} | {times} | {'none' if gpus == 1 else f'{exchanged:.1f} TB'} |")


if __name__ == "__main__":
    main()
