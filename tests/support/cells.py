"""The cells of the table that were executed, by loss, as pytest carries them about."""

import pytest

EXECUTED = pytest.StashKey[dict[str, int]]()
"""Where the count is kept."""
