"""HVC itself: trunk, heads, the online and the target network, and the loss."""
