"""Floor 4: submits any stage to a cluster and keeps it alive."""
