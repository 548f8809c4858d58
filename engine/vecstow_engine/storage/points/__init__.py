"""`points.db`: one SQLite table with the points of the last checkpoint.

`records` has what stands in it and the checksums, `reader` reads, `writer` commits (the only module that
writes it), `read_at_rest` reads without a lock or a trace, `table_repair` rebuilds trees that do not lead to
intact points.
"""
