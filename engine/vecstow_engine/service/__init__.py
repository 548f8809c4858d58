"""The running engine: its collections, its writers and searches, its background work.

Charter: a service module joins `storage` and `index`, and owns the threads. The number of threads does not
depend on the number of collections. A module may import `query`, `doctor`, `importers`, `storage`, `index`
and `model`; never `api` or `cli`. Nothing here uses HTTP. Errors come from `model.errors`.

    engine            the facade that api and cli call, with its start and stop
    settings          every setting with its unit, default and reason
    registry          the collections and their names
    aliases           second names of collections: lookups and changes
    catalog           creation, drop, purge, restore and import of collections
    manifest_watcher  manifests and folders that another program changed
    collection        one collection: manifest, state, store, index
    lifecycle         the states of a collection and their transitions
    loader            opens the volume and its collections: recovery, then the index
    repairer          the repair of one collection while the others serve
    committer         group commit: writers share a log append and a sync
    searcher          searches that wait are answered together, in threads that collections and keys share
    indexer           the thread that moves rows into graphs, and the start of rebuilds
    upkeep            the thread of checkpoints, snapshots, rebuilds, rescans and purges
    snapshotter       index.bin, written by a forked child
    attempts          failed work for a collection: log, count, pause, retry
    hold              the hold: only logs change while it lasts; the guards that other changes pass
    memory_plan       the memory limit and its parts
    memory_accounts   what the collections take of the memory limit
    request_memory    what requests take of the memory limit
    stats             figures of collections and of the server, self-recall

Example, without HTTP:

    engine = Engine(Settings(data=Path("data")))
    engine.start()  # returns before every collection is opened
    manifest = Manifest(name="notes", dimension=2, distance_metric=DistanceMetric.COSINE)
    engine.catalog.create(manifest, exist_ok=True)
    batch = PointBatch.build(manifest, ["a"], np.array([[1, 0]], np.float32), None)
    await engine.upsert("notes", batch)  # durable and visible when it returns
    query = SearchQuery.build(manifest, np.array([1, 0], np.float32), limit=1)
    hits = await engine.search("notes", query)
    engine.stop()
"""
