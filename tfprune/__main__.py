"""Run the command line with `python -m tfprune`."""

from tfprune.cli import main

main()
