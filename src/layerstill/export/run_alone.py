"""Labels of texts with onnxruntime and tokenizers alone: python run.py [model.int8.onnx] TEXT...

Without TEXT, one per line from standard input. A tab stands between the two texts of a pair.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


def main() -> None:
    """Print a line for each text."""
    folder, given = Path(__file__).parent, sys.argv[1:]
    file = given.pop(0) if given and given[0].endswith(".onnx") else "model.onnx"
    about = json.loads((folder / "config.json").read_text("utf-8"))["layerstill"]
    kind, labels = about["head"]["kind"], about["labels"]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    session = onnxruntime.InferenceSession(str(folder / file), providers=["CPUExecutionProvider"])
    for text in given or sys.stdin.read().splitlines():
        words = [" " * (i > 0) + word for i, word in enumerate(text.split())]
        tagged = kind == "tokens"
        read = tokenizer.encode(words, is_pretokenized=True) if tagged else tokenizer.encode(*text.split("\t", 1))
        columns = {"input_ids": read.ids, "token_type_ids": read.type_ids, "attention_mask": read.attention_mask}
        inputs = {one.name: np.array([columns[one.name]], dtype=np.int64) for one in session.get_inputs()}
        logits = session.run(None, inputs)[0][0]
        if kind == "regression":
            said = ", ".join(f"{name} {x:.4f}" for name, x in zip(labels or [""], logits, strict=True)).strip()
        elif kind == "multilabel":  # each label has a probability of its own
            likely = 1 / (1 + np.exp(-logits))
            least = about["head"]["threshold"]
            said = ", ".join(f"{name} {p:.4f}" for name, p in zip(labels, likely, strict=True) if p >= least) or "none"
        elif tagged:  # the first piece of a word has its tag
            first = {word: i for i, word in reversed(list(enumerate(read.word_ids))) if word is not None}
            said = " ".join(f"{words[word].strip()}/{labels[logits[i].argmax()]}" for word, i in sorted(first.items()))
        else:
            likely = np.exp(logits - logits.max())
            said = f"{labels[logits.argmax()]} {(likely / likely.sum()).max():.4f}"
        print(said, text, sep="\t")


if __name__ == "__main__":
    main()
