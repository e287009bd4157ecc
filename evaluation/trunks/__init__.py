"""From what a user names to the features that are evaluated."""
