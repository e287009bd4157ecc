"""Floor 2: manifest -> batches of two views -> HVC under DeepSpeed -> checkpoints, tracked."""
