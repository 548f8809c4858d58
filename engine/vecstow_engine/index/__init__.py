"""Nearest neighbours in memory: the graph and the exact index. May import model alone, and touches no file."""
