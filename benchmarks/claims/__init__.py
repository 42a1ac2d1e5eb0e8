"""From a study's runs to the tables and verdicts of docs/evidence.md."""

from benchmarks.claims import mappings, objectives, regimes

STUDIES = {"mappings": mappings, "objectives": objectives, "regimes": regimes}
"""The studies whose claims are judged; each has `show(records)`."""
