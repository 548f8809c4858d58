"""A reader of d-vecDB's `vectors.bin`, described in docs/dvecdb-format.md; nothing here writes the file.

`record_file` reads the file in blocks, and finds where a record begins. `metadata` reads the metadata of
a record; `untyped_metadata` and `field_statistics` read metadata that was stored without types. `importer`
joins them, and makes a collection from the result.
"""
