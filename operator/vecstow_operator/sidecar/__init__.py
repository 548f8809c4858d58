"""The sidecar role: it turns the resources of one engine into manifests on the volume of one pod.

A pass observes a complete list of resources and the folders of the volume. It decides by a pure function,
acts, and reports to the engine next to it. It writes nothing to the API server.
"""
