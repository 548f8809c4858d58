"""What the benchmarks share: server process, connections, load, data, figures and their table."""
