"""The command line in this process."""

import pytest

from layerstill.cli import main


def status_of(*words: str) -> int:
    """Exit status of `layerstill WORDS`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["layerstill", *words])
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0
