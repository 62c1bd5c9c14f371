import json
import re
from dataclasses import dataclass

import pytest

from tfprune import allocation, criteria, patterns
from tfprune.allocation import Allocation, Global, Uniform
from tfprune.criteria import Criterion, Magnitude, Random
from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.patterns import NM, Block, Pattern, Unstructured
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
    Schedule,
    Staircase,
    Threshold,
)

OBJECTS = [
    ConstantSparsity(0.5, begin_step=3, frequency=7),
    PolynomialDecay(0.1, 0.8, power=2, begin_step=Epochs(1.5), end_step=Fraction(0.5)),
    LinearDecay(0.0, 0.8, end_step=10),
    CosineDecay(0.0, 0.8, end_step=10),
    ExponentialDecay(0.0, 0.8, end_step=10),
    OneCycle(0.0, 0.8, end_step=10, steepness=10.0),
    Staircase([(Epochs(1), 0.5), (300, 0.8)]),
    Keep(),
    Threshold(0.1, relative_to="max", frequency=5),
    Magnitude(),
    Random(seed=3),
    criteria.Rigl(drop_fraction=0.2, seed=1),
    criteria.Set(drop_fraction=0.5),
    *(
        getattr(criteria, name)()
        for name in criteria.__all__
        if name not in ("Criterion", "WeightView", "Magnitude", "Random", "Rigl", "Set")
    ),
    Unstructured(),
    Block((2, 4)),
    NM(1, 4, axis="output"),
    patterns.Vector(4, axis="output"),
    *(getattr(patterns, name)() for name in ("Channel", "Column", "Filter", "Head", "Kernel")),
    patterns.Row(),
    patterns.Xnnpack(input_shape=(224, 224, 3)),
    Uniform(),
    Global(min_sparsity=0.1, max_sparsity=0.95),
    allocation.UniformPlus(),
    allocation.Erk(kernel=False),
    allocation.Lamp(),
    allocation.PerLayer({"conv1": 0.05, re.compile("dense.*/kernel"): 0.8}, default=0.5),
    allocation.Staged(["conv1", re.compile("dense")]),
]


@pytest.mark.parametrize("value", OBJECTS, ids=repr)
def test_every_object_survives_json(value):
    family = next(f for f in (Schedule, Criterion, Pattern, Allocation) if isinstance(value, f))
    saved = json.loads(json.dumps(value.serialize()))
    before = json.dumps(saved)
    assert family.get(saved) == value
    assert json.dumps(saved) == before, "the caller's dict was changed"


def test_the_list_above_covers_every_class():
    known = {
        cls
        for family in (Schedule, Criterion, Pattern, Allocation)
        for cls in family._concrete_classes()
        if cls.__module__.startswith("tfprune.")
    }
    # A function cannot be saved: it becomes a PerLayer as soon as the weights are known.
    assert known - {allocation.PerWeight} == {type(value) for value in OBJECTS}


def test_a_bare_name_is_enough_only_without_arguments():
    with pytest.raises(InvalidArgumentError, match=r"needs arguments \(shape\)"):
        Pattern.get("block")


def test_a_users_own_dataclass_is_serializable():
    @dataclass(frozen=True)
    class HalfWay(Schedule):
        sparsity: float

        def sparsity_at(self, step):
            return self.sparsity / 2

    assert Schedule.get(HalfWay(0.5, end_step=10).serialize()) == HalfWay(0.5, end_step=10)


def test_a_users_own_class_without_config_is_refused_when_saved():
    class NoConfig(Criterion):
        def score(self, weight):
            return weight.values

    with pytest.raises(InvalidTypeError, match="make it a frozen dataclass"):
        NoConfig().serialize()


def test_two_classes_of_one_name_are_refused():
    with pytest.raises(InvalidArgumentError, match="A criterion named 'Magnitude' exists already"):
        type("Magnitude", (Criterion,), {"__module__": "elsewhere"})


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InvalidArgumentError, match=r"Unknown criterion 'tailor'.*'magnitude'"):
        Criterion.get("tailor")


def test_a_value_of_another_type_is_refused():
    with pytest.raises(InvalidTypeError, match=r"`pattern` must be one of.*Received: 3"):
        Pattern.get(3)
