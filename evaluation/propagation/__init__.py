"""Label propagation through one video, and the protocol it follows."""
