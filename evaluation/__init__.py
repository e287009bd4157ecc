"""Floor 3: a checkpoint of a run -> propagated labels -> scores -> back to that run."""
