"""From a study's runs to the tables and verdicts of docs/evidence.md."""
