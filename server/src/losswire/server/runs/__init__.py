"""Runs that are kept: their database, its migrations, and what a run must be to be kept."""
