"""Measures as the benchmarks define them."""
