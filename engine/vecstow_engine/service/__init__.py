"""The engine at work: which collections there are, who may write, when the disk and the index follow.

Charter: a service module joins `storage` and `index` and owns the threads. Their number is fixed by the
settings, not by the collections. It knows nothing of HTTP; what it raises is from `model.errors`.

    engine        the facade that api and cli use
    catalog       how collections come and go
    following     manifests that somebody else changed
    registry      which there are
    collection    one collection: state, store, index
    loading       a collection from the volume: recovery and its index
    committer     group commit: writers share a log append and a sync
    searcher      searches that wait are answered together
    background    the threads that move rows into graphs, checkpoint, snapshot, purge
    snapshotter   index.bin, written by a forked child
    gate          the hold: nothing but logs changes while it lasts
    settings      every setting with its default, flag and environment variable
"""
