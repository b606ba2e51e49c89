"""Measurements of Losswire beside what nothing can beat: `python -m benchmarks --help`."""
