"""Exit codes, and the one place where an expected error becomes one line on stderr."""

from __future__ import annotations

from rich.text import Text
from typer import Exit
from typer.core import TyperGroup

from tfprune.cli.console import progress_console
from tfprune.errors import TfpruneError, VerificationError

FAILURE = 1
"""The command could not do its work; the line on stderr says why."""

VERIFICATION_FAILURE = 3
"""A written artifact does not compute what the model computes (2 is typer's, for usage)."""


class Commands(TyperGroup):
    """A command group whose expected errors end as `error: ...` and an exit code.

    Errors that nobody expected keep their traceback: they are bugs, and it belongs in the report.
    """

    def invoke(self, ctx):
        """Run the command that `ctx` names."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # The reader of a pipe left, as in `| head`; typer ends quietly.
        except VerificationError as error:
            raise _report(error, VERIFICATION_FAILURE) from error
        except (TfpruneError, OSError) as error:
            raise _report(error, FAILURE) from error


def _report(error: Exception, code: int) -> Exit:
    text = " ".join(_message(error).split())
    progress_console.print(Text.assemble(("error: ", "bold red"), text), soft_wrap=True)
    return Exit(code)


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)
