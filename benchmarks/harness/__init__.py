"""What all benchmarks share: the command line, the clock, the ceilings, the comparison with a reference, the tables."""
