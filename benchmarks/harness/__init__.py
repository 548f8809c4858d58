"""The shared parts of the benchmarks: server process, connections, load, data, figures and their table."""
