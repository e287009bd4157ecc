"""All sequences of an evaluation: over processes, machines and attempts."""
