"""`kubectl vecstow`: the first commands to type in an outage.

The plugin acts with the rights of its caller and needs neither sidecar nor manager. It reaches engines
through the API server's proxy of their pods.
"""
