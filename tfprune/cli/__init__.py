"""The command line: `tfprune demo | inspect | prune | export | check`.

Nothing here imports TensorFlow until a command needs it, so `tfprune --help` answers at once.
"""

from tfprune.cli.app import app

__all__ = ["main"]


def main() -> None:
    """Run the command line and leave with its exit code."""
    app(prog_name="tfprune")
