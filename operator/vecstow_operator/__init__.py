"""Vecstow's operator: one kopf program in two roles, the manager and the sidecar.

It brings what is declared in Kubernetes and what lies on the volumes to the same state. It may import of the
engine only the manifest's modules, so that both read and write a manifest by the same code.
"""
