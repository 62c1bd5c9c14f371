"""`Trial`: an artifact is run in the runtime of its format, and in others that it may ship to.

Dense TFLite files compute the same everywhere, but for rounding. Sparse-encoded ones may not: where
XNNPACK runs them in its sparse mode, which a laptop does not, a file can be garbage.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfprune.errors import TfpruneError, VerificationError
from tfprune.export.data import Samples
from tfprune.export.formats import Format, Tolerance
from tfprune.export.report import (
    ArtifactReport,
    RuntimeReport,
    folder_files,
    gzip_size,
    zero_fraction,
)
from tfprune.export.runners import LiteRtRunner, Runner, TfliteRunner, split_runtimes
from tfprune.export.signature import Signature
from tfprune.export.sparse_runtime.graph import read_graph
from tfprune.export.verify import Comparison, artifact_outputs, check, compare

Outcome = tuple[RuntimeReport, Comparison, int]


@dataclass(frozen=True)
class Trial:
    """What an artifact is held to.

    Args:
        fmt: its format.
        path: the artifact.
        signature: its inputs.
        samples: what it is run on.
        expected: the outputs of the Keras model for them, by name.
        tolerance: how far its outputs may be from those.
        threads: threads of the runtime.
        runs: timed calls.
    """

    fmt: Format
    path: Path
    signature: Signature
    samples: Samples
    expected: dict[str, np.ndarray]
    tolerance: Tolerance
    threads: int
    runs: int

    def run(self, further: list[type[TfliteRunner]], note: str) -> ArtifactReport:
        """Load the artifact in each runtime, compare it, and measure it.

        Args:
            further: the runtimes besides that of the format.
            note: what its writer tells.

        Raises:
            VerificationError: it does not load, or does not compute what the model computes.
        """
        try:
            home, comparison, threads = self._at_home()
            elsewhere = [self._elsewhere(runner_class) for runner_class in further]
        except TfpruneError:
            raise
        except Exception as error:
            raise VerificationError(
                f"{self.path.name} does not run in the runtime that it is meant for: {error} "
                f"Nothing was exported; leave {self.fmt.name!r} out of `formats` to export the "
                "others."
            ) from error
        return ArtifactReport(
            name=self.fmt.name,
            file=self.fmt.filename,
            bytes=sum(file.stat().st_size for file in folder_files(self.path)),
            gzip_bytes=gzip_size(self.path),
            sparsity=zero_fraction(self.fmt.stored_weights(self.path)),
            max_difference=comparison.max_difference,
            tolerance=self.tolerance.max_difference,
            agreement=comparison.agreement,
            clear_agreement=comparison.clear_agreement,
            clear_inputs=comparison.clear_inputs,
            latency_ms=home.latency_ms,
            runs=home.runs,
            threads=threads,
            runtime=home.runtime,
            note=note,
            runtimes=(home, *elsewhere),
        )

    def _at_home(self) -> Outcome:
        return self._outcome(self.fmt.runner, self.samples, self.tolerance, self.runs)

    def _elsewhere(self, runner_class: type[TfliteRunner]) -> RuntimeReport:
        few = self.samples.first(runner_class.MAX_EXAMPLES * (self.signature.batch_size or 1))
        # Among few inputs, one with another class means nothing.
        tolerance = Tolerance(self.tolerance.max_difference)
        return self._outcome(runner_class, few, tolerance, min(self.runs, runner_class.MAX_RUNS))[0]

    def _outcome(
        self,
        load: Callable[[Path, int], Runner],
        samples: Samples,
        tolerance: Tolerance,
        runs: int,
    ) -> Outcome:
        with load(self.path, self.threads) as runner:
            home = load is self.fmt.runner
            artifact = self.path.name if home else f"{self.path.name} on {runner.runtime}"
            expected = {name: array[: samples.count] for name, array in self.expected.items()}
            outputs = artifact_outputs(runner, self.signature, samples)
            comparison = compare(expected, outputs, artifact)
            check(self.fmt, artifact, comparison, tolerance, samples)
            batch, _ = next(samples.batches(self.signature.batch_size or 1))
            times = runner.time(batch, runs)
        report = RuntimeReport(
            name=getattr(runner, "NAME", self.fmt.name),
            runtime=runner.runtime,
            max_difference=comparison.max_difference,
            examples=samples.count,
            latency_ms=statistics.median(times),
            runs=runs,
        )
        return report, comparison, runner.threads


def further_runtimes(
    fmt: Format, path: Path, asked: list[type[TfliteRunner]] | None
) -> tuple[list[type[TfliteRunner]], dict[str, str]]:
    """Return where an artifact is run besides the runtime of its format.

    Args:
        fmt: its format.
        path: the artifact.
        asked: the runtimes that the user names; None leaves the choice: a sparse file is run on
            all that are installed.

    Returns:
        The runtimes, and how to install those that it would be run on too, by name.
    """
    if fmt.runner is not LiteRtRunner:
        return [], {}
    if asked is None and not read_graph(path).is_sparse_encoded:
        return [], {}
    present, missing = split_runtimes() if asked is None else (asked, {})
    return [runner for runner in present if runner is not LiteRtRunner], missing
