"""Fixtures for more than one folder of tests."""

from tests.cluster.fixtures import cluster, namespace

__all__ = ["cluster", "namespace"]
