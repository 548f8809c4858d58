"""The write-ahead log: `writer` appends and syncs records, `replay` reads them.

`segment` defines the bytes of a segment and what its records do to a collection, and `segment_reader` reads
them block by block.
"""
