"""Which row is shipped."""

from dataclasses import replace

import pytest

from layerstill.compression.choice import Budget, choose, outdone
from layerstill.compression.rows import Row
from layerstill.errors import UserError

TEACHER = Row(
    "teacher", "torch", 6, 22_700_000, 0.873, 100.0, None, 1.0, 20.6, 30.0, 90.0, 90.9, 200.0, True, True, "", "t"
)
ONNX = replace(TEACHER, form="onnx", p50_ms=15.0, path="t/model.onnx")
INT8 = replace(TEACHER, form="int8", p50_ms=7.8, disk_mb=23.0, path="t/model.int8.onnx")


def student(layers: int, score: float, ms: float, mb: float, **more: object) -> Row:
    kept = 100 * score / TEACHER.score
    row = replace(
        INT8, model=f"{layers} layers", teaches=False, layers=layers, score=score, kept=kept, p50_ms=ms, disk_mb=mb
    )
    return replace(row, path=f"{layers}-layers/onnx/model.int8.onnx", **more)


FOUR, THREE, TWO = student(4, 0.866, 5.2, 19.0), student(3, 0.857, 4.0, 17.4), student(2, 0.81, 2.8, 15.6)
ROWS = [TEACHER, ONNX, INT8, FOUR, THREE, TWO]


def test_without_limits_the_fastest_within_the_drop_is_named() -> None:
    found = choose(ROWS, Budget())
    assert found.row is THREE
    assert "98.2 %" in found.sentences[0]
    assert "1.9 times as fast as the quantised teacher" in found.sentences[1]


def test_a_smaller_drop_names_a_deeper_student() -> None:
    assert choose(ROWS, Budget(max_drop=1)).row is FOUR


def test_within_a_limit_on_time_the_best_score_is_named() -> None:
    assert choose(ROWS, Budget(max_ms=6, max_drop=10)).row is FOUR
    assert choose(ROWS, Budget(max_ms=3, max_drop=10)).row is TWO


def test_within_a_limit_on_size_the_best_score_is_named() -> None:
    assert choose(ROWS, Budget(max_mb=18, max_drop=10)).row is THREE


def test_the_quantised_teacher_wins_where_no_student_keeps_the_quality() -> None:
    bad = [replace(row, score=0.7) for row in (FOUR, THREE, TWO)]
    found = choose([TEACHER, ONNX, INT8, *bad], Budget())
    assert found.row is INT8
    assert "better buy" in found.sentences[1]


def test_an_unfit_file_is_not_named() -> None:
    assert choose([TEACHER, ONNX, INT8, FOUR, replace(THREE, fit=False)], Budget()).row is FOUR


def test_what_fits_nothing_is_told_what_misses_least() -> None:
    found = choose(ROWS, Budget(max_ms=1))
    assert found.row is None
    assert "4.0 ms of 1" in found.sentences[1]


def test_a_student_worse_and_no_faster_than_the_quantised_teacher_is_called_that() -> None:
    slow = student(4, 0.866, 8.0, 10.0)
    found = choose([TEACHER, ONNX, INT8, slow], Budget(max_mb=12))
    assert found.row is slow
    assert "better buy" in found.sentences[1]


@pytest.mark.parametrize("budget", [{"max_ms": 0}, {"max_mb": -1}, {"max_drop": 101}, {"max_ms": float("inf")}])
def test_a_budget_of_nothing_is_refused(budget: dict) -> None:
    with pytest.raises(UserError, match="--max-"):
        Budget(**budget)


def test_a_student_that_says_one_thing_is_never_named() -> None:
    assert choose(ROWS, Budget(), collapsed={"3 layers"}).row is FOUR


def test_a_teacher_that_is_not_quantised_is_not_called_so() -> None:
    broken = replace(INT8, score=0.5)
    bad = [replace(row, score=0.7) for row in (FOUR, THREE, TWO)]
    found = choose([TEACHER, ONNX, broken, *bad], Budget())
    assert found.row is ONNX
    assert "The teacher as an ONNX file is the better buy" in found.sentences[1]


def test_no_number_is_no_small_loss() -> None:
    nothing = replace(THREE, score=float("nan"))
    assert choose([TEACHER, ONNX, INT8, nothing], Budget()).row is INT8


def test_an_interval_that_reaches_below_what_is_allowed_is_said() -> None:
    wide, narrow = replace(THREE, interval=(80.0, 110.0)), replace(THREE, interval=(98.0, 99.0))
    assert "anything from 80.0 to 110.0 %" in choose([TEACHER, ONNX, INT8, wide], Budget()).sentences[0]
    assert "anything" not in choose([TEACHER, ONNX, INT8, narrow], Budget()).sentences[0]


def test_a_student_that_scores_less_than_the_quantised_teacher_and_is_no_faster_is_called_that() -> None:
    slow = [student(4, 0.866, 7.8, 19.0), student(4, 0.866, 15.0, 76.0, form="onnx")]
    assert outdone([TEACHER, ONNX, INT8, *slow]) == [
        "WARNING: 4 layers: the quantised teacher scores higher (87.3, this 86.6) and is no slower (7.8 ms, this 7.8)."
    ]
    assert not outdone([TEACHER, ONNX, INT8, replace(slow[0], p50_ms=7.7), slow[1]])
    assert not outdone([TEACHER, ONNX, INT8, replace(slow[0], score=INT8.score), slow[1]])
    assert not outdone([TEACHER, ONNX, *slow])
