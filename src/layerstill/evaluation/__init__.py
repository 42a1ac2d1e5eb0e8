"""Scores, predictions and latency."""
