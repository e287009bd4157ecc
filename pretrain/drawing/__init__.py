"""Pictures of a run: views, pairs, features, curves and weights."""
