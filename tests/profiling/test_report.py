"""The report as text, as JSON, and on its own."""

import gc
import json
import pickle
import subprocess
import sys
import weakref

import keras
import pytest
from keras import layers

from tfprune.profiling import profile


@pytest.fixture
def report():
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            layers.Conv2D(2, 3, name="conv", kernel_initializer="ones"),
            layers.Flatten(name="flat"),
            layers.Dense(3, name="head", kernel_initializer="zeros"),
        ],
        name="tiny",
    )
    return profile(model)


def test_the_text_is_an_aligned_table(report):
    lines = str(report).splitlines()
    assert lines[0] == "Profile of 'tiny', one example (1 MAC = 2 FLOPs)"
    assert lines[1].split() == [
        *("parameters", "47", "(47", "trainable),", "non-zero", "18", "(sparsity", "61.7", "%)")
    ]
    header, rule, *rows = lines[6:]
    assert rows == [
        "conv   Conv2D  2x2x2       20    10.0 %    72         72    152",
        "head   Dense   3           27   100.0 %    24          0     51",
    ]
    assert len(rule) == len(header) == len(rows[0])


def test_layers_without_parameters_and_costs_have_no_row(report):
    assert [row.path for row in report.layers] == ["conv", "head"]
    assert report.layers[1].sparsity == 1.0
    assert report.layers[0].input_shapes == ((1, 4, 4, 1),)


def test_totals_are_the_sums_of_the_rows(report):
    for name in ("parameters", "nonzeros", "macs", "effective_macs", "flops", "effective_flops"):
        assert getattr(report, name) == sum(getattr(row, name) for row in report.layers)


def test_the_dict_survives_json(report):
    values = json.loads(json.dumps(report.to_dict()))
    assert values["macs"] == report.macs
    assert values["bytes"]["dense"] == 47 * 4
    assert values["layers"][1]["sparsity"] == 1.0
    assert values["uncounted"] == []


def test_the_report_does_not_keep_the_model_alive():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    kernel = weakref.ref(model.layers[0].kernel)
    report = profile(model)
    del model
    keras.backend.clear_session()
    gc.collect()
    assert kernel() is None
    assert pickle.loads(pickle.dumps(report)) == report


def test_importing_the_package_and_timing_do_not_load_tensorflow():
    code = (
        "import sys; from tfprune.profiling import Profile, measure_latency; "
        "measure_latency(lambda: 0); "
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    import tfprune.profiling

    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = tfprune.profiling.nothing
    assert all(hasattr(tfprune.profiling, name) for name in tfprune.profiling.__all__)
