"""A memory of training examples, and the distance that compares with it."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from layerstill.errors import UserError
from layerstill.knowledge.distances import MemoryNCE
from layerstill.knowledge.memory import Examples, Memory, Numbered
from layerstill.randomness import distinct
from tests.knowledge.golden import Case

ONES = torch.ones(1, dtype=torch.bool)


def test_crd_of_the_papers_code():
    case = Case("crd_memory_bank")
    tau, momentum, K, n = (case.parameters[name] for name in ("tau", "momentum", "K", "n_data"))
    distance = MemoryNCE(negatives=K, temperature=tau, momentum=momentum)
    memory = distance.memory(Examples([None] * n), case["memory_student"].shape[1], seed=0).double()
    memory.student.copy_(case["memory_student"].detach())
    memory.teacher.copy_(case["memory_teacher"].detach())
    s, t = (F.linear(case[f"{x}_features"], case[f"W_{x}"], case[f"b_{x}"]) for x in ("student", "teacher"))
    index, contrast = case["index"], case["contrast_index"]
    assert torch.equal(contrast[:, 0], index)
    total, count = distance.recall(s, t, ONES, memory, index.tolist(), contrast[:, 1:])
    case.check("reference.loss", total / count)
    case.check("as_released.loss", total / count)
    before = memory.student.clone()
    memory.finish_step()
    case.check("reference.updated_memory_student", memory.student)
    case.check("as_released.updated_memory_student", memory.student)
    assert torch.equal((memory.student != before).any(1).nonzero().squeeze(1), index.sort().values)
    for side, scale in zip(("student", "teacher"), memory.log_scales, strict=True):
        case.check(f"reference.Z_{side}_side", scale.exp())


def test_the_first_step_says_what_is_divided_by():
    distance, memory = MemoryNCE(negatives=3), Memory(Examples([None] * 9), 5, 3, 0.5, seed=0).double()
    rng = torch.Generator().manual_seed(0)
    rows = [torch.randn(2, 4, 5, generator=rng, dtype=torch.float64) for _ in range(2)]
    others = torch.tensor([[4, 5, 6]] * 4)
    distance.recall(*rows[0], ONES, memory, [0, 1, 2, 3], others)
    memory.finish_step()
    first = memory.log_scales.clone()
    distance.recall(*rows[1], ONES, memory, [0, 1, 2, 3], others)
    memory.finish_step()
    assert torch.equal(memory.log_scales, first)


@pytest.mark.parametrize("learns", [True, False])
def test_a_row_that_does_not_count_is_not_compared_and_not_remembered(learns):
    distance = MemoryNCE(negatives=3)
    s, t = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    others = torch.tensor([[4, 5, 6], [5, 6, 7], [4, 6, 8], [5, 7, 8]])
    found = []
    for rows in (4, 3):
        memory = Memory(Examples([None] * 9), 5, 3, 0.5, seed=0).double()
        left, right = s[:rows].clone().requires_grad_(), t[:rows].clone()
        if rows == 4:
            right[3] = math.nan
        mask = torch.tensor([1, 1, 1, 0][:rows]).bool()[:, None]
        own = [0, 1, 2, -1][:rows] if learns else None
        total, count = distance.recall(left, right, mask, memory, own, others[:rows])
        (gradient,) = torch.autograd.grad(total, left)
        memory.finish_step()
        found.append((total.detach(), count, gradient[:3], memory.student, memory.teacher, memory.log_scales))
        if rows == 4:
            assert gradient[3].abs().sum() == 0
        assert bool(memory.log_scales.isfinite().all()) == learns
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_the_same_in_single_precision_at_every_temperature():
    s, t = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for temperature in (0.01, 0.07, 100):
        values = []
        for dtype in (torch.float32, torch.float64):
            memory = Memory(Examples([None] * 9), 5, 3, 0.5, seed=0).to(dtype)
            total, _ = MemoryNCE(negatives=3, temperature=temperature).recall(
                s.to(dtype), t.to(dtype), ONES, memory, [0, 1, 2, 3], torch.tensor([[4, 5, 6]] * 4)
            )
            values.append(total.item())
        assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_negatives_are_different_examples_of_other_classes():
    kinds = [0, 1, 0, 2, 1, 0, None, 0, None]
    examples = Examples(kinds)
    memory = Memory(examples, 4, examples.negatives(100), 0.5, seed=0)
    assert memory.negatives == 5, "as many as the largest class leaves"
    seen = {number: set() for number in range(9)}
    for step in range(200):
        rows = Numbered(list(range(9)), [None] * 9, step)
        for number, row in enumerate(memory.drawn(rows, 0, step).tolist()):
            assert len(set(row)) == 5
            seen[number] |= set(row)
    for number, others in seen.items():
        kind = kinds[number]
        wanted = {i for i, other in enumerate(kinds) if i != number and (kind is None or other != kind)}
        assert others == wanted


def test_an_example_of_another_split_is_told_from_all_of_other_classes():
    examples = Examples([0, 1, 0, 2, 1, 0])
    memory = Memory(examples, 4, examples.negatives(100), 0.5, seed=0)
    rows = Numbered([700, 701, 702, 703], [0, 2, None, 9], None)
    seen = [set(), set(), set(), set()]
    for step in range(100):
        for row, drawn in enumerate(memory.drawn(rows, 0, step).tolist()):
            assert len(set(drawn)) == memory.negatives == 3
            seen[row] |= set(drawn)
    assert seen == [{1, 3, 4}, {0, 1, 2, 4, 5}, set(range(6)), set(range(6))]


def test_what_is_drawn_for_an_example_depends_on_no_other():
    memory = Memory(Examples([i % 2 for i in range(40)]), 4, 6, 0.5, seed=0)
    numbers = [3, 17, 20, 39]
    together = memory.drawn(Numbered(numbers, [None] * 4, 0), 0)
    for row, number in enumerate(numbers):
        assert torch.equal(memory.drawn(Numbered([-1, number], [None] * 2, 0), 0)[1], together[row])


def test_vectors_begin_at_random_with_length_1_in_the_mean():
    examples = Examples([None] * 400)
    one, again, other = (Memory(examples, 128, 100, 0.5, seed) for seed in (0, 0, 1))
    assert torch.equal(one.student, again.student)
    assert not torch.equal(one.student, other.student)
    assert not torch.equal(one.student, one.teacher)
    assert one.student.square().sum(1).mean().item() == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("kinds", [[1] * 7, [None], []])
def test_examples_of_one_class_are_refused(kinds):
    with pytest.raises(UserError, match=f"all {len(kinds)} training examples are of one; use distance: infonce"):
        Examples(kinds).negatives(100)
    assert Examples([*kinds, None, 3]).negatives(1) == 1


@pytest.mark.parametrize(("size", "count"), [(1, 1), (7, 7), (100, 100), (1000, 10)])
def test_numbers_are_drawn_without_repetition_and_each_as_often(size, count):
    rows = np.arange(4000)
    found = distinct(0, rows, np.full(4000, size), count, "name")
    assert all(len(set(row)) == count for row in found.tolist())
    assert (found.min(), found.max()) == (0, size - 1)
    first = np.bincount(found[:, 0], minlength=size)
    assert abs(first / 4000 - 1 / size).max() < 5 / math.sqrt(4000 * size)
    assert np.array_equal(distinct(0, rows[7:8], np.array([size]), count, "name")[0], found[7])
    if size > 1:
        assert not np.array_equal(distinct(0, rows, np.full(4000, size), count, "another"), found)
