"""The manager role: what the engines say becomes status, events and finalizers of the resources.

A pass observes (all resources of the namespace, the engines' StatefulSets and pods, one state document of
each pod), decides by pure functions, and acts once. It touches no volume.
"""
