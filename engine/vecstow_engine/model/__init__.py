"""The values of Vecstow: names, manifests, metrics, vectors, payloads, filters and errors.

Charter: pure values and their rules. A module here may import the standard library, numpy and msgspec, and
other modules of this package. It never opens a file, a socket or a thread. The modules that the operator
shares (`aliases`, `manifest`, `resource`, `names`, `metrics`, `errors`, `fields`, `backoff`, `key_source`)
use the standard library only.
"""
