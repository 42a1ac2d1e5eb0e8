"""How fast and how large: turns, samples, threads, sizes, and what the command says of them."""

import json
import time

import numpy as np
import pytest
import torch

from layerstill.errors import UserError
from layerstill.evaluation.footprint import MB, disk_mb, memory_mb
from layerstill.evaluation.latency import Speed, even_sample, measure_speed, torch_runner
from layerstill.heads import Tokens
from layerstill.training.runners import load_runner
from tests.tiny import TAGS, save_tiny, tiny_model, tiny_tokenizer, write_conll, write_csv

KEYS = {"p50_ms", "p99_ms", "texts_per_second", "batch_size", "threads", "disk_mb", "memory_mb"}


class Sleeper:
    """A runner that takes so many milliseconds for a text, and keeps what it was given."""

    def __init__(self, milliseconds: float, calls: list | None = None, name: str = "") -> None:
        self.milliseconds, self.calls, self.name = milliseconds, calls if calls is not None else [], name

    def __call__(self, texts: list[tuple[str, ...]]) -> None:
        self.calls.append((self.name, tuple(texts)))
        time.sleep(self.milliseconds * len(texts) / 1000)


def texts_of_lengths(count: int) -> list[tuple[str, ...]]:
    return [("x" * (1 + 7 * i % count),) for i in range(count)]


def test_times_are_those_of_one_text_and_of_whole_batches():
    speed = measure_speed({"a": Sleeper(2), "b": Sleeper(4)}, texts_of_lengths(20), rounds=2, batch_size=8)
    assert 2 <= speed["a"].p50_ms <= speed["a"].p99_ms
    assert 4 <= speed["b"].p50_ms <= speed["b"].p99_ms
    # A batch of 8 sleeps for 8 texts, so there are at most 500 and 250 texts a second.
    assert 250 < speed["a"].texts_per_second <= 500
    assert 125 < speed["b"].texts_per_second <= 250
    assert (speed["a"].batch_size, speed["a"].threads) == (8, 1)


def test_a_rare_slow_text_shows_at_the_99th_percentile_and_not_in_the_median():
    def run(texts):
        time.sleep(0.03 if len(texts) == 1 and len(texts[0][0]) >= 38 else 0.001)

    speed = measure_speed({"a": run}, [("x" * n,) for n in range(40)], rounds=1)["a"]
    assert speed.p50_ms < 10
    assert speed.p99_ms > 25


def test_runners_take_turns_on_every_text_and_the_order_rotates():
    calls: list = []
    names = ["a", "b", "c"]
    measure_speed({name: Sleeper(0, calls, name) for name in names}, texts_of_lengths(9), rounds=1, batch_size=4)
    singles = [call for call in calls if len(call[1]) == 1][3:]  # the first three warm up
    rows = [singles[i : i + 3] for i in range(0, len(singles), 3)]
    assert len(rows) == 9
    assert all(len({texts for _, texts in row}) == 1 for row in rows)
    assert ["".join(name for name, _ in row) for row in rows[:4]] == ["abc", "bca", "cab", "abc"]
    batches = [call for call in calls if len(call[1]) == 4]
    assert len(batches) == 3 + 3 * 4


def test_texts_are_drawn_evenly_over_the_lengths_of_the_data():
    lengths = [1] * 900 + list(range(2, 102))
    chosen = even_sample([("x" * n,) for n in lengths], 100)
    found = sorted(len(text) for (text,) in chosen)
    assert len(found) == 100
    assert found.count(1) == pytest.approx(90, abs=1)  # as in the data
    assert found[-1] == 101
    assert [len(text) for (text,) in chosen] != found  # stopping early leaves no length out
    assert even_sample([("a",), ("b",)], 100) != []


def test_a_budget_ends_it_early_but_not_before_anything_is_known():
    sleeper = Sleeper(10)
    begun = time.perf_counter()
    speed = measure_speed({"a": sleeper}, texts_of_lengths(100), rounds=50, batch_size=4, budget_seconds=0.01)["a"]
    assert time.perf_counter() - begun < 2
    assert sum(len(texts) == 1 for _, texts in sleeper.calls) == 1 + 20
    assert speed.texts_per_second > 0


def test_fewer_texts_than_a_batch_are_repeated_and_none_is_refused():
    calls: list = []
    measure_speed({"a": Sleeper(0, calls)}, [("one",), ("two",)], rounds=1, batch_size=8)
    assert max(len(texts) for _, texts in calls) == 8
    with pytest.raises(UserError, match="there is no text to time"):
        measure_speed({"a": Sleeper(0)}, [])


def test_threads_hold_while_it_lasts_and_are_put_back():
    before, seen = torch.get_num_threads(), set()

    def fail(texts):
        seen.add(torch.get_num_threads())
        raise RuntimeError

    with pytest.raises(RuntimeError):
        measure_speed({"a": fail}, [("a",)], threads=before + 1)
    assert seen == {before + 1}
    assert torch.get_num_threads() == before


def test_a_shallower_model_is_faster():
    models = {"deep": tiny_model(layers=12, width=96), "shallow": tiny_model(layers=1, width=96)}
    runners = {name: torch_runner(model, tiny_tokenizer(), 16) for name, model in models.items()}
    speed = measure_speed(runners, [("good film",)] * 20)
    assert 0 < speed["shallow"].p50_ms < speed["deep"].p50_ms
    assert speed["shallow"].texts_per_second > speed["deep"].texts_per_second


def test_a_runner_gives_the_models_logits_for_texts_pairs_and_words():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    pairs = [("good film", "the plot is bad"), ("fine", "a")]
    logits = np.asarray(torch_runner(model, tokenizer, 16)(pairs))
    with torch.no_grad():
        alone = [model(**tokenizer(*pair, return_tensors="pt")).logits[0].numpy() for pair in pairs]
    np.testing.assert_allclose(logits, np.stack(alone), atol=2e-5)
    tagger = tiny_model(head=Tokens(), labels=len(TAGS))
    tagger.config.architectures = ["BertForTokenClassification"]
    words = [("the", "good", "film"), ("a", "plot")]
    assert np.asarray(torch_runner(tagger, tokenizer, 16)(words)).shape == (2, 5, len(TAGS))
    assert np.asarray(torch_runner(tagger, tokenizer, 4)(words)).shape == (2, 4, len(TAGS))


def test_memory_of_a_fresh_process_holds_the_weights_and_disk_their_files(tmp_path):
    small = save_tiny(tmp_path / "small", width=48, layers=1)
    large = save_tiny(tmp_path / "large", width=768, heads=12, layers=8)
    size = disk_mb([large / "model.safetensors"])
    assert size == pytest.approx((large / "model.safetensors").stat().st_size / MB, abs=0.06)
    taken = [memory_mb(load_runner, (str(folder), 32), ("good film",)) for folder in (small, large)]
    assert size * 0.9 < taken[1] - taken[0] < size * 1.5
    with pytest.raises(UserError, match="measures the memory of .*gone 32 failed: .*no such folder"):
        memory_mb(load_runner, (str(tmp_path / "gone"), 32), ("good film",))


def test_evaluate_measures_when_it_is_asked(tmp_path, call):
    model = save_tiny(tmp_path / "model", layers=2)
    data = write_csv(tmp_path / "data.csv")
    words = f"evaluate {model} --task classification --data {data} --max-length 32"
    status, out, err = call(f"{words} --latency --threads 2 --json")
    assert status == 0, err
    found = json.loads(out)["speed"]
    assert set(found) == KEYS
    assert found["threads"] == 2
    assert 0 < found["p50_ms"] <= found["p99_ms"]
    assert found["disk_mb"] == disk_mb([model / "model.safetensors"])
    assert found["memory_mb"] > 0
    assert "speed" not in json.loads(call(f"{words} --json")[1])
    status, _, err = call(f"{words} --threads 2")
    assert status == 2
    assert "--threads 2: nothing is timed without --latency" in err


def test_evaluate_times_sentences_of_words_and_says_so_in_words(tmp_path, call):
    model = save_tiny(tmp_path / "model", layers=1, head=Tokens(), names=TAGS)
    data = write_conll(tmp_path / "data.conll")
    status, out, err = call(f"evaluate {model} --task tokens --data {data} --max-length 32 --latency")
    assert status == 0, err
    assert "one text on the CPU, 1 thread: " in out
    assert "batches of 32: " in out
    assert " MB on disk, " in out


def test_a_speed_is_plain_data_and_back():
    speed = Speed(1.5, 2.5, 400.0, 32, 1)
    assert Speed(**speed.to_data()) == speed
    assert speed.memory_mb is None
