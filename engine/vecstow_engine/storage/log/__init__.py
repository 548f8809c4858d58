"""The write-ahead log: `writer` appends and syncs records, `replay` reads them.

`segment` defines the bytes of a segment, `segment_reader` reads them block by block, and `effects` defines
what a record does to a collection.
"""
