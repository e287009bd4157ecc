"""From manifests to batches of two views: which samples in which order, read, decoded and cut."""
