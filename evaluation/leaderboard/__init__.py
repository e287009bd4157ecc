"""Runs, baselines and published figures side by side."""
