"""What lies on the volume, and how it gets there: docs/storage-format.md in code.

Charter: a storage module may import `model`, the standard library, numpy and crc32c; never `index`, `service`
or `api`. All file writes go through `files`; SQLite's own (in `points`) are the exception. What is read from
disk is checked before it is used, and what fails raises a typed error from `model.errors`; nothing here logs
and then raises. Locks are held by the callers except where a class says otherwise.
"""
