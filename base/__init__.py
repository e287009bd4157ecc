"""What every room stands on: errors, typed configuration, the stage contract, storage.

Nothing in here knows about images, networks, clusters or MLflow, and nothing imports torch.
"""
