"""The manager role: it turns the engines' states into status, events and finalizers of the resources.

A pass observes all resources of the namespace, the engines' StatefulSets and pods, and the state of each pod.
It decides by pure functions, acts, and reports. It touches no volume.
"""
