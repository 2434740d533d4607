"""What the machine can do at best is measured by every instruction set, and refuses what cannot be measured."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from selfee.errors import UsageError
from selfee.eval.limits import Limits, Machine
from selfee.weights.quantize import instruction_sets, native


@pytest.mark.parametrize("isa", instruction_sets())
@pytest.mark.parametrize("threads", [1, 2])
def test_every_instruction_set_reads_and_multiplies(isa: str, threads: int) -> None:
    buffer = np.full(1 << 16, 1, np.uint8)[3:]  # not aligned to anything
    assert native().read_rate(buffer, threads, 1, isa) > 0
    assert native().multiply_rate(threads, 1000, isa) > 0


def test_a_wrong_wish_is_refused_by_name() -> None:
    buffer = np.ones(4096, np.uint8)
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: native().read_rate(buffer, 0, 1), "threads 0"),
        (lambda: native().read_rate(buffer, 1, 0), "repeats 0"),
        (lambda: native().read_rate(buffer, 8, 1), "buffer of 4096 bytes; expected 1024 for each thread"),
        (lambda: native().multiply_rate(1, 0), "rounds 0"),
        (lambda: native().multiply_rate(257, 1), "threads 257"),
        (lambda: native().multiply_rate(1, 1, "mmx"), "instruction set 'mmx'"),
    ]
    for call, what in calls:
        with pytest.raises(ValueError, match=what):
            call()


def test_the_machine_measures_both_limits_for_any_size() -> None:
    machine = Machine(100)
    for size in (1, 1 << 20, 1 << 40):
        limits = machine.measure(size, 1)
        assert limits.read > 0
        assert limits.multiply > 0
    for threads in (0, 257):
        with pytest.raises(UsageError, match=rf"threads: {threads}; expected 1 to 256"):
            machine.measure(1, threads)


def test_between_two_measurements_their_mean_held() -> None:
    assert Limits(1, 10).mean(Limits(3, 30)) == Limits(2, 20)
