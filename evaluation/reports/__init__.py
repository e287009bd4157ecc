"""Scores on their way back to the run that made the checkpoint."""
