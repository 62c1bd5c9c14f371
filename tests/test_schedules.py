import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.schedules import (
    ConstantSparsity,
    CosineDecay,
    Epochs,
    ExponentialDecay,
    Fraction,
    Keep,
    LinearDecay,
    OneCycle,
    PolynomialDecay,
    Ramp,
    Schedule,
    Staircase,
    as_schedule,
)

RAMPS = [PolynomialDecay, LinearDecay, CosineDecay, ExponentialDecay, OneCycle]


def served(schedule, steps):
    """Return the update steps that a run of `steps` steps serves, as the engine asks for them."""
    due = (schedule.due_step(step - 1 or -1, step) for step in range(1, steps + 1))
    return [step for step in due if step is not None]


@pytest.mark.parametrize(
    ("step", "expected"), [(101, 0.3626), (102, 0.4928), (105, 0.725), (109, 0.7994)]
)
def test_polynomial_decay_gives_the_values_of_tfmot(step, expected):
    ramp = PolynomialDecay(0.2, 0.8, begin_step=100, end_step=110)
    assert ramp.sparsity_at(step) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("ramp_class", RAMPS)
@given(
    initial=st.floats(0, 0.99),
    final=st.floats(0, 0.99),
    begin=st.integers(0, 50),
    length=st.integers(0, 300),
    frequency=st.integers(1, 400),
)
def test_a_ramp_ends_exactly_at_its_final_sparsity(
    ramp_class, initial, final, begin, length, frequency
):
    ramp = ramp_class(
        initial, final, begin_step=begin, end_step=begin + length, frequency=frequency
    )
    assert ramp.sparsity_at(begin + length) == final
    steps = served(ramp, begin + length + 5)
    assert steps[-1] == begin + length
    assert ramp.target_sparsity == final
    low, high = min(initial, final), max(initial, final)
    values = [ramp.sparsity_at(step) for step in range(begin + length + 5)]
    assert all(low - 1e-12 <= value <= high + 1e-12 for value in values)


@pytest.mark.parametrize("ramp_class", RAMPS)
def test_a_ramp_that_begins_where_it_ends_jumps(ramp_class):
    ramp = ramp_class(0.1, 0.8, begin_step=5, end_step=5)
    assert [ramp.sparsity_at(step) for step in (4, 5, 6)] == [0.1, 0.8, 0.8]
    assert served(ramp, 20) == [5]


def test_updates_come_at_the_begin_then_by_frequency_then_at_the_end():
    ramp = LinearDecay(0.0, 0.8, begin_step=10, end_step=35, frequency=10)
    assert served(ramp, 100) == [10, 20, 30, 35]


def test_step_zero_is_served_at_the_first_step():
    assert served(ConstantSparsity(0.5, frequency=4), 9) == [0, 4, 8]


def test_a_skipped_step_is_served_late_and_once():
    ramp = LinearDecay(0.0, 0.8, begin_step=0, end_step=100, frequency=10)
    assert ramp.due_step(after=12, until=48) == 40
    assert ramp.due_step(after=40, until=48) is None


def test_constant_sparsity_is_zero_before_it_begins():
    schedule = ConstantSparsity(0.5, begin_step=10)
    assert [schedule.sparsity_at(step) for step in (9, 10, 10**6)] == [0.0, 0.5, 0.5]


def test_a_staircase_jumps_at_its_stages():
    schedule = Staircase([(Epochs(1), 0.5), (Fraction(0.9), 0.8)]).resolve(100, 1000)
    assert served(schedule, 1000) == [100, 900]
    assert [schedule.sparsity_at(step) for step in (99, 100, 899, 900)] == [0.0, 0.5, 0.5, 0.8]


def test_keep_never_updates():
    assert served(Keep(), 50) == []
    assert math.isnan(Keep().sparsity_at(3))


def test_moments_become_steps_when_the_run_is_known():
    ramp = PolynomialDecay(0.0, 0.8, begin_step=Epochs(1.5), end_step=Fraction(0.75))
    assert not ramp.is_resolved
    resolved = ramp.resolve(steps_per_epoch=10, total_steps=100)
    assert (resolved.begin_step, resolved.end_step) == (15, 75)


def test_an_unresolved_schedule_says_what_it_needs():
    with pytest.raises(InvalidArgumentError, match="needs the length of the run"):
        PolynomialDecay(0.0, 0.8, end_step=Epochs(2)).sparsity_at(3)


def test_moments_that_resolve_to_begin_after_end_are_refused():
    ramp = LinearDecay(0.0, 0.8, begin_step=Epochs(3), end_step=Fraction(0.1))
    with pytest.raises(InvalidArgumentError, match="`begin_step` must not be after `end_step`"):
        ramp.resolve(steps_per_epoch=10, total_steps=100)


def test_a_number_is_a_constant_sparsity():
    assert as_schedule(0.5) == ConstantSparsity(0.5)
    assert as_schedule("keep") == Keep()


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: ConstantSparsity(80), InvalidArgumentError, r"pass 0.8 for 80 % zeros.*: 80"),
        (lambda: ConstantSparsity(1.0), InvalidArgumentError, r"fraction in \[0, 1\)"),
        (lambda: ConstantSparsity(-0.1), InvalidArgumentError, r"fraction in \[0, 1\)"),
        (lambda: ConstantSparsity(float("nan")), InvalidArgumentError, r"fraction in \[0, 1\)"),
        (lambda: ConstantSparsity("half"), InvalidTypeError, "must be a number"),
        (
            lambda: LinearDecay(0, 0.8, begin_step=9, end_step=3),
            InvalidArgumentError,
            "begin_step=9",
        ),
        (lambda: LinearDecay(0, 0.8, end_step=None), InvalidArgumentError, "needs an `end_step`"),
        (lambda: LinearDecay(0, 0.8, frequency=0), InvalidArgumentError, "at least 1 step"),
        (lambda: LinearDecay(0, 0.8, frequency=True), InvalidTypeError, "must be an int"),
        (lambda: LinearDecay(0, 0.8, begin_step=-1), InvalidArgumentError, "at least 0"),
        (lambda: LinearDecay(0, 0.8, begin_step=1.5), InvalidTypeError, "must be a step"),
        (lambda: PolynomialDecay(0, 0.8, power=0), InvalidArgumentError, "`power`"),
        (lambda: Staircase([]), InvalidArgumentError, "at least one"),
        (lambda: Staircase([0.5]), InvalidTypeError, "pairs"),
        (lambda: Staircase([(9, 0.5), (3, 0.8)]), InvalidArgumentError, "increasing order"),
        (lambda: Epochs(-1), InvalidArgumentError, "at least 0"),
        (lambda: Fraction(50), InvalidArgumentError, "pass 0.5 for half"),
        (lambda: as_schedule("polynomial"), InvalidArgumentError, "only schedule with a bare name"),
        (lambda: as_schedule(None), InvalidTypeError, "`schedule` must be a number"),
    ],
)
def test_bad_arguments_are_refused_at_construction(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_the_abstract_bases_cannot_be_made():
    for base in (Schedule, Ramp):
        with pytest.raises(TypeError, match="abstract"):
            base()
