"""Vecstow's engine: vector collections on one volume, served over REST.

Its packages are layers, and each imports only what lies below it: cli, api, service, then storage and
index side by side, then model. Nothing here knows Kubernetes or imports the operator.
"""

__version__ = "0.2.0"
