"""The command line answers at once, and says how it is used."""

import resource
import subprocess
import sys

import pytest

from tfprune._version import __version__

HEAVY = ("tensorflow", "keras", "numpy", "sklearn", "ai_edge_litert")


def run_python(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["prune", "absent.keras"]])
def test_nothing_heavy_is_imported_until_it_is_needed(arguments):
    code = (
        "import sys\n"
        "from tfprune.cli import main\n"
        f"sys.argv = ['tfprune', *{arguments!r}]\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        f"    print('imported:', *sorted({set(HEAVY)!r} & set(sys.modules)))\n"
    )
    assert run_python("-c", code).stdout.splitlines()[-1] == "imported:"


def processor_seconds(*arguments):
    """What a process costs: unlike its duration, about the same on a busy machine."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run_python(*arguments).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_costs_hardly_more_than_that_of_an_empty_command():
    """A fifth of a second, where the goal is to answer within half of one."""
    empty = "import typer; app = typer.Typer(); app.command()(lambda: None); app()"
    rounds = [
        (processor_seconds("-m", "tfprune", "--help"), processor_seconds("-c", empty, "--help"))
        for _ in range(3)
    ]
    ours, theirs = map(min, zip(*rounds, strict=True))
    assert ours < 2 * theirs


def test_help_lists_the_commands_and_the_exit_codes():
    text = run_python("-m", "tfprune", "--help").stdout
    for word in ("demo", "inspect", "prune", "export", "Exit codes: 0 done, 1 failed"):
        assert word in text


def test_version_is_the_package_version():
    assert run_python("-m", "tfprune", "--version").stdout == f"tfprune {__version__}\n"


def test_no_command_is_a_usage_error_that_shows_the_help():
    result = run_python("-m", "tfprune")
    assert result.returncode == 2
    assert "Usage: tfprune" in result.stdout + result.stderr
