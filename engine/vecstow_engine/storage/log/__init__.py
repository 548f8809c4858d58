"""The write-ahead log: `writer` appends and syncs, `replay` reads back.

`segment` has the bytes of a segment, `segment_reader` reads them block by block, and `effects` has what a
record does to a collection.
"""
