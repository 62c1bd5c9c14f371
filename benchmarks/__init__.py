"""Benchmarks of tfprune beside its peers; run one with `python -m benchmarks.NAME`."""
