"""Vecstow's operator: one kopf program in two roles, the manager and the sidecar.

It brings the resources of Kubernetes and the collections on the volumes to the same state. From the engine it
imports only the modules that `pyproject.toml` lists, so that both programs read a manifest by the same code.
"""
