"""Copying the logits once: what moving bytes costs at the very least."""

from collections.abc import Sequence

import numpy as np

from benchmarks import data
from benchmarks.worker import Spec, Work, WrongResultError, serve


class Copy(Work):
    """One copy into memory that is there already."""

    def __init__(self, spec: Spec) -> None:
        """Make the array and its place."""
        self._source = data.logits(spec.rows, spec.columns, spec.dtype)
        self._place = np.zeros_like(self._source)

    def call(self) -> object:
        """Copy."""
        np.copyto(self._place, self._source)
        return self._place

    def check(self) -> str:
        """Compare the bytes."""
        self.call()
        if not np.array_equal(self._place, self._source):
            raise WrongResultError("the copy differs")
        return "the same bytes"


def main(_arguments: Sequence[str]) -> int:
    """Answer the benchmark's commands."""
    return serve(Copy)
