"""The sidecar role: what is declared becomes the manifests on this pod's volume.

A pass observes (its own complete list of resources, the folders of the volume), decides by a pure function,
acts once, and tells the engine beside it what it found. It writes nothing to the API server.
"""
