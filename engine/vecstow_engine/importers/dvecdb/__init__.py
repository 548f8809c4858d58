"""A reader of d-vecDB's `vectors.bin`, described in docs/dvecdb-format.md; nothing here writes the file.

`block_reader` reads the file in blocks, and `record_headers` finds where a record begins. `untyped_metadata`
and `field_statistics` read metadata that was stored without types. `reader` joins them, and `importer` makes
a collection from the result.
"""
