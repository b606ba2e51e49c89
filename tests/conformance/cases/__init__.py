"""The table of the conformance vectors.

To add one, add an entry to a file of this folder and run `make conformance`.

A case with `ulps=0` must come out exactly: its numbers are short enough that no step of a correct
implementation rounds. Other cases go through exp, log or a division and state the tolerance of the
result; README.md says how it is measured.
"""

from tests.conformance.cases.activations import ACTIVATIONS, MORE_ACTIVATIONS
from tests.conformance.cases.classification import BINARY, CROSS_ENTROPY
from tests.conformance.cases.embedding import EMBEDDINGS, MARGINS
from tests.conformance.cases.errors import ERRORS
from tests.conformance.cases.given import Case, Failure, Given
from tests.conformance.cases.many import MANY
from tests.conformance.cases.regression import DIVERGENCE, LIKELIHOOD, REGRESSION
from tests.conformance.cases.sequences import OTHERS

__all__ = ["CASES", "Case", "Failure", "Given"]

CASES: tuple[Case, ...] = (
    *CROSS_ENTROPY,
    *BINARY,
    *REGRESSION,
    *DIVERGENCE,
    *ACTIVATIONS,
    *MORE_ACTIVATIONS,
    *LIKELIHOOD,
    *MARGINS,
    *EMBEDDINGS,
    *OTHERS,
    *MANY,
    *ERRORS,
)
