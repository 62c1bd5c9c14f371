"""Export: SavedModel and TFLite artifacts that were run before they are called good.

The one door is `export_model`: it strips pruning wrappers, writes a set of artifacts, runs each in
the runtime it ships to, compares it with the Keras model, and only then replaces what the folder
held before. Nothing here imports TensorFlow before a model is exported.
"""

from tfprune.export.exporter import export_model
from tfprune.export.formats import Tolerance
from tfprune.export.metadata import Metadata
from tfprune.export.report import ArtifactReport, ExportReport

__all__ = ["ArtifactReport", "ExportReport", "Metadata", "Tolerance", "export_model"]
