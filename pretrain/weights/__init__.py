"""Trunks in files: ours, other people's, and their forms on disk."""
