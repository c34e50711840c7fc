"""Each guard of the engine is taken out once, and the cheapest test that ought to notice does: `python -m tests.mutants`, in short."""

from __future__ import annotations

import pytest
from mutants import MUTANTS, Mutant, is_noticed


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_guard_that_is_taken_out_is_missed(mutant: Mutant) -> None:
    assert is_noticed(mutant, (mutant.killer,)), f"without {mutant.name}, {mutant.killer} passes all the same"
