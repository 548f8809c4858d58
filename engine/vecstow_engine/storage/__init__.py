"""The files of the volume: the code of docs/storage-format.md.

Charter: a storage module may import `model`, the standard library, numpy and crc32c; never `index`, `service`
or `api`. All writes to files go through `files`, except SQLite's own in `points`. Data from disk is checked
before use, and data that fails its check raises a typed error from `model.errors`. No module here logs an
error that it raises. Callers hold the locks, unless a class says otherwise.
"""
