"""Registered checkpoints: each evaluated once, the best marked."""
