"""Metrics: pure functions on gold labels and decisions. They know neither models nor data."""
