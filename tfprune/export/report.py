"""What an export wrote, measured: one `ArtifactReport` per artifact in one `ExportReport`.

The report is a value: it prints as a table, is written beside the artifacts as `report.json`, and
`ExportReport.load` reads it back equal. How each number is measured stands with its field.
"""

import json
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.errors import ArtifactError
from tfprune.export.atomic import REPORT_FILE, SCHEMA_KEY
from tfprune.export.nm_patterns import PatternShare
from tfprune.text_table import align_columns

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class RuntimeReport:
    """An artifact in one runtime, in which it is the same as the Keras model.

    Args:
        name: the short name of the runtime; the name of the format if it has only one.
        runtime: name and version.
        max_difference: see `ArtifactReport`.
        examples: inputs that it was compared on.
        latency_ms: median of `runs` calls after a warm-up, in milliseconds; under an emulator, of
            the emulator.
        runs: timed calls.
    """

    name: str
    runtime: str
    max_difference: float
    examples: int
    latency_ms: float
    runs: int


@dataclass(frozen=True)
class ArtifactReport:
    """One verified artifact.

    Args:
        name: its format.
        file: the file or folder in the export folder.
        bytes: size; for a folder the sum over its files.
        gzip_bytes: size of the content after gzip at level 9; for a folder the sum over its files.
        sparsity: fraction of exact zeros in the stored weight tensors, which are the
            floating-point or int8 tensors with at least two axes (kernels and embeddings, not
            biases); quantized to int8, small weights become zeros too. None without such tensors.
        max_difference: largest difference from the Keras model, as a fraction of the largest
            absolute value of the output.
        tolerance: what `max_difference` was allowed to be.
        agreement: fraction of the verification inputs with the largest class of the Keras model;
            None where the outputs are no class scores.
        clear_agreement: the same over the inputs where the Keras model clearly prefers a class;
            None where there is no such input.
        clear_inputs: number of those inputs.
        latency_ms: median of `runs` calls after a warm-up, in milliseconds.
        runs: timed calls.
        threads: threads of the runtime.
        runtime: name and version of what ran the artifact.
        note: what else is to be told, in sentences: what was rewritten, or why not.
        runtimes: all runtimes that it was run on, the one above first.
        patterns: N:M patterns that stored kernels have; see `tfprune.export.nm_patterns`.
    """

    name: str
    file: str
    bytes: int
    gzip_bytes: int
    sparsity: float | None
    max_difference: float
    tolerance: float
    agreement: float | None
    clear_agreement: float | None
    clear_inputs: int
    latency_ms: float
    runs: int
    threads: int
    runtime: str
    note: str = ""
    runtimes: tuple[RuntimeReport, ...] = ()
    patterns: tuple[PatternShare, ...] = ()


@dataclass(frozen=True)
class ExportReport:
    """All artifacts of one export.

    Args:
        model: name of the Keras model.
        artifacts: the artifacts, in the order asked for.
        batch_size: examples per call; None if it is open (latency is then of one example).
        verification: the inputs that the artifacts were compared on.
        representative: the inputs that the integer formats were calibrated with, or None.
        directory: the export folder, as it was passed.
        missing_runtimes: runtimes that sparse artifacts were not run on since they are not
            installed, with the command that does that.

    Example:
        >>> artifact = ArtifactReport("tflite", "model.tflite", 964, 512, 0.5, 0.0, 1e-4,
        ...                           1.0, 1.0, 4, 0.01, 20, 1, "ai-edge-litert 2.3.0")
        >>> report = ExportReport("net", (artifact,), 1, "4 random examples", None, "out")
        >>> report["tflite"].bytes, report.smallest, report.fastest
        (964, 'tflite', 'tflite')
        >>> ExportReport.from_dict(report.to_dict(), "out") == report
        True
    """

    model: str
    artifacts: tuple[ArtifactReport, ...]
    batch_size: int | None
    verification: str
    representative: str | None
    directory: str
    missing_runtimes: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> ArtifactReport:
        """Return the artifact of a format."""
        for artifact in self.artifacts:
            if artifact.name == name:
                return artifact
        raise KeyError(f"{name!r} was not exported; there are {self.names}.")

    @property
    def names(self) -> list[str]:
        """The formats that were exported."""
        return [artifact.name for artifact in self.artifacts]

    @property
    def smallest(self) -> str:
        """The format with the fewest bytes on disk."""
        return min(self.artifacts, key=lambda artifact: artifact.bytes).name

    @property
    def smallest_gzip(self) -> str:
        """The format with the fewest bytes to download: stores and web servers compress."""
        return min(self.artifacts, key=lambda artifact: artifact.gzip_bytes).name

    @property
    def fastest(self) -> str:
        """The format with the lowest latency on this machine, with the threads that each had."""
        return min(self.artifacts, key=lambda artifact: artifact.latency_ms).name

    @property
    def notes(self) -> list[str]:
        """What else is to be told of the artifacts, a line each."""
        told = {
            artifact.name: [*(f"{share}." for share in artifact.patterns), artifact.note]
            for artifact in self.artifacts
        }
        return [
            f"{name}: {' '.join(filter(None, notes))}" for name, notes in told.items() if any(notes)
        ]

    @property
    def runtime_rows(self) -> list[list[str]]:
        """Where artifacts with several runtimes were the same as the model: a table, or empty."""
        several = [artifact for artifact in self.artifacts if len(artifact.runtimes) > 1]
        if not several:
            return []
        names = list(dict.fromkeys(r.name for artifact in several for r in artifact.runtimes))
        rows = [["same on", *names]]
        for artifact in several:
            found = {
                runtime.name: f"{runtime.max_difference:.1e}, {runtime.latency_ms:.3g} ms"
                for runtime in artifact.runtimes
            }
            rows.append([artifact.name, *(found.get(name, "-") for name in names)])
        return rows

    @property
    def missing_note(self) -> str:
        """Which runtimes sparse artifacts were not run on, and how to install them; or empty."""
        needs = [f"{name} ({command})" for name, command in self.missing_runtimes.items()]
        return f"sparse files were not run on {', '.join(needs)}" if needs else ""

    def path(self, name: str) -> Path:
        """Return the path of the artifact of a format."""
        return Path(self.directory, self[name].file)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; the folder is left out, so that it can be moved."""
        fields = asdict(self)
        del fields["directory"]
        best = {
            "smallest": self.smallest,
            "smallest_gzip": self.smallest_gzip,
            "fastest": self.fastest,
        }
        artifacts = [
            {
                **asdict(artifact),
                "runtimes": [*map(asdict, artifact.runtimes)],
                "patterns": [*map(asdict, artifact.patterns)],
            }
            for artifact in self.artifacts
        ]
        return {SCHEMA_KEY: SCHEMA_VERSION, **fields, "artifacts": artifacts, **best}

    def to_json(self) -> str:
        """Return `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_dict(cls, values: dict[str, Any], directory: str = "") -> "ExportReport":
        """Rebuild a report from `to_dict`."""
        return cls(
            model=values["model"],
            artifacts=tuple(map(_artifact, values["artifacts"])),
            batch_size=values["batch_size"],
            verification=values["verification"],
            representative=values["representative"],
            directory=directory,
            missing_runtimes=values.get("missing_runtimes", {}),
        )

    @classmethod
    def load(cls, directory: str | Path) -> "ExportReport":
        """Read the report of an export folder.

        Args:
            directory: the folder.

        Raises:
            ArtifactError: it holds no report that this version can read.
        """
        path = Path(directory, REPORT_FILE)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values[SCHEMA_KEY] != SCHEMA_VERSION:
                raise ValueError(f"schema {values[SCHEMA_KEY]!r}, expected {SCHEMA_VERSION}")
            return cls.from_dict(values, str(directory))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{path} is not the report of an export: {error!r}") from error

    def _further_runtimes(self) -> list[str]:
        rows = self.runtime_rows
        lines = ["", *align_columns(rows, right=range(1, len(rows[0])))] if rows else []
        return [*lines, *filter(None, [self.missing_note])]

    def __str__(self) -> str:
        """Return the report as a table."""
        header = [
            "artifact", "file", "bytes", "gzip", "sparsity", "max diff", "allowed",
            "agreement", "clear-cut", "latency", "threads",
        ]  # fmt: skip
        rows = [header, *(_cells(artifact) for artifact in self.artifacts)]
        lines = align_columns(rows, right=range(2, len(header)))
        lines.insert(1, "-" * max(map(len, lines)))
        batch = "open (latency of one example)" if self.batch_size is None else self.batch_size
        runs = max(artifact.runs for artifact in self.artifacts)
        return "\n".join(
            [
                f"Export of {self.model!r} to {self.directory}",
                "",
                *lines,
                "",
                f"smallest: {self.smallest} (compressed: {self.smallest_gzip}), "
                f"fastest here: {self.fastest}",
                f"verified on {self.verification}; calibrated on {self.representative or 'none'}",
                f"batch size {batch}; latency is the median of {runs} runs; differences are "
                "fractions of the largest output value",
                *self.notes,
                *self._further_runtimes(),
            ]
        )


def _artifact(values: dict[str, Any]) -> ArtifactReport:
    runtimes = tuple(RuntimeReport(**entry) for entry in values.get("runtimes", ()))
    patterns = tuple(PatternShare(**share) for share in values.get("patterns", ()))
    return ArtifactReport(**{**values, "runtimes": runtimes, "patterns": patterns})


def folder_files(path: Path) -> list[Path]:
    """Return the file itself, or all files below a folder."""
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file())


def gzip_size(path: Path) -> int:
    """Return the bytes of a file, or of all files of a folder, each after `gzip -9`."""
    size = 0
    for file in folder_files(path):
        # 31: the gzip container with the largest window, as `gzip -9` writes it.
        compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                size += len(compressor.compress(chunk))
        size += len(compressor.flush())
    return size


def zero_fraction(weights: Iterable[np.ndarray]) -> float | None:
    """Return the fraction of exact zeros over all tensors, or None if there are none."""
    zeros = total = 0
    for weight in weights:
        zeros += weight.size - int(np.count_nonzero(weight))
        total += weight.size
    return zeros / total if total else None


def _cells(artifact: ArtifactReport) -> list[str]:
    def percent(fraction: float | None) -> str:
        return "-" if fraction is None else f"{fraction:.1%}"

    clear = f"{percent(artifact.clear_agreement)} of {artifact.clear_inputs}"
    return [
        artifact.name,
        artifact.file,
        f"{artifact.bytes:,}",
        f"{artifact.gzip_bytes:,}",
        percent(artifact.sparsity),
        f"{artifact.max_difference:.1e}",
        f"{artifact.tolerance:.0e}",
        percent(artifact.agreement),
        "-" if artifact.clear_agreement is None else clear,
        f"{artifact.latency_ms:.3f} ms",
        str(artifact.threads),
    ]
