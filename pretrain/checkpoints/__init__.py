"""Contract 2: all of a run's state in a folder that counts only when it is complete."""
