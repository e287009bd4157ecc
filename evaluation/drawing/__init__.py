"""Pictures of an evaluation: overlays, strips, curves and feature maps."""
