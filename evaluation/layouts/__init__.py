"""Files of data sets and of results, as the benchmarks lay them out."""
