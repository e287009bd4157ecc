"""What is recorded of a run: on disk first, then at MLflow."""
