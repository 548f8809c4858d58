"""`kubectl vecstow`: what somebody who was woken types first.

It acts with the rights of whoever calls it, needs neither sidecar nor manager, and asks engines through the
API server's proxy of their pods.
"""
