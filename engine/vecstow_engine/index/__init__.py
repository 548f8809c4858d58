"""Nearest neighbours in memory: the graph, the exact index next to it, and the code that joins the two.

Charter: vectors enter as float32 rows under labels, and labels with distances are returned. A module here may
import the standard library, numpy, hnswlib and `vecstow_engine.model`, and other modules of this package.
It touches no file, except that `Hnsw.save` and `Hnsw.load` pass a path to hnswlib. It starts no thread
(hnswlib starts some within a call), and does not know ids, payloads or logs.

    vector_index         the index of one collection: one thread-safe interface to the modules below
      searching          one search over graph, tail and backlog
      graph_feeder       moves rows into the graph, one slice at a time
      slices             the length of a slice
      state              the data that these share, and its two locks
      fair_lock          a lock that serves threads in the order of their requests
    graph                approximate search of many rows, equal ones included; the caller guards it
      hnsw               a small interface to hnswlib
      groups             labels that share a node, because their rows are equal
      row_table          the node that holds a row
      node_checks        the nodes to search for after their insertion
    snapshot_format      the labels and deleted marks in a graph that hnswlib saved
    rebuild              a second graph that is built while the first one serves
    tail                 rows that are not in the graph yet, searched exactly
    backlog              labels whose rows are only on disk yet
    exact                distances and exact search: the oracle of each approximate search
    label_table          the place of each label, by slot
    hits                 answers of searches
"""
