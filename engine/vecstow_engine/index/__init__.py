"""Nearest neighbours in memory: the graph, the exact index beside it, and what joins the two.

Charter: vectors go in as float32 rows under labels, and labels with distances come out. A module here may
import the standard library, numpy, hnswlib and `vecstow_engine.model`, and other modules of this package.
It touches no file, except that `Hnsw.save` and `Hnsw.load` hand a path to hnswlib; it starts no
thread of its own (hnswlib starts some within a call), and knows nothing of ids, payloads or logs.

    vector_index       one collection's index: all of the below behind one interface, safe to share
      searching        one search over graph, tail and backlog
      moving, slices   rows into the graph, a slice at a time, and how long a slice may be
      state            what these share, and the two locks over it
    graph              approximate search of many rows, equal ones included; the caller guards it
      hnsw             hnswlib behind a small interface
      groups           labels that share a node, because their rows are equal
      row_table        which node holds a row
      checking         which nodes are searched for after they were inserted
    snapshot_format    the labels and marks in a graph that hnswlib saved
    rebuild            a second graph that is built while the first one serves
    tail               rows that are not in the graph yet, searched exactly
    backlog            labels whose rows are only on disk yet
    exact              distances and exact search: the oracle of everything approximate
    label_table        where each label is, by slot
    hits               answers, and how labels are made of slots and generations
    turns              the lock that serves whoever asked first
"""
