"""Steps over ranks: DeepSpeed, the optimiser, what may go wrong in a step, and how fast it goes."""
