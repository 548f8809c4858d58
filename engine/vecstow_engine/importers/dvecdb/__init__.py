"""Reading d-vecDB's `vectors.bin`; nothing here writes. docs/dvecdb-format.md has the format.

`block_reader` reads the file in blocks, `record_headers` knows where a record begins, `untyped_metadata` and
`field_statistics` read metadata that was stored without types, `reader` joins them, and `importer` makes a
collection of what it reads.
"""
