"""From a study's runs to the tables and verdicts of docs/evidence.md."""

from benchmarks.claims import layers, mappings, objectives, regimes

STUDIES = {"layers": layers, "mappings": mappings, "objectives": objectives, "regimes": regimes}
"""The studies whose claims are judged; each has `show(records)` and `verdicts(records)`."""
