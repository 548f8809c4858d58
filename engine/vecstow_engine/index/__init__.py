"""Nearest neighbours in memory: the graph, the exact index next to it, and the code that joins the two.

Charter: vectors enter as float32 rows under labels, and labels with distances are returned. A module here may
import the standard library, numpy, hnswlib and `vecstow_engine.model`, and other modules of this package.
It touches no file, except in `Hnsw.save` and `Hnsw.load`. It starts no thread (hnswlib starts some within a
call), and does not know ids, payloads or logs.

    vector_index         the index of one collection: one thread-safe interface, and its search
      state              the data that its parts share, and the slices that move rows into the graph
      turns              the lock of the graph, and the length of a slice
    graph                approximate search of many rows, equal ones included; the caller guards it
      hnsw               a small interface to hnswlib, and the content of a graph that it saved
      nodes              the node that holds a row, the labels that share a node, the nodes to check
    places               the tail, the backlog, and the place of each label
    exact                hits, distances and exact search: the oracle of each approximate search

The packages next to these modules index payloads: `payload` has the fields of filters, `text` the words of
texts.
"""
