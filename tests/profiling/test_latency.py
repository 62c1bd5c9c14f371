import time

import pytest

from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.profiling import measure_latency


def test_the_median_ignores_warmup_and_outliers():
    waits = iter([0.2, 0.001, 0.1, 0.001])
    latency = measure_latency(lambda: time.sleep(next(waits)), runs=3, warmup=1)
    assert latency.runs == 3
    assert 1 <= latency.min_ms <= latency.median_ms < 50


def test_the_function_is_called_runs_and_warmup_times():
    calls = []
    latency = measure_latency(lambda: calls.append(1), runs=4, warmup=2)
    assert len(calls) == 6
    assert str(latency).endswith("4 runs)")


def test_wrong_arguments_are_refused():
    with pytest.raises(InvalidTypeError, match="`function` must be callable"):
        measure_latency(3)
    with pytest.raises(InvalidArgumentError, match=r"`runs` must be at least 1\. Received: 0"):
        measure_latency(lambda: 0, runs=0)
    with pytest.raises(InvalidArgumentError, match="`warmup` must not be negative"):
        measure_latency(lambda: 0, warmup=-1)
