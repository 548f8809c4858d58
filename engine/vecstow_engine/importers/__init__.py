"""The import of data files without a manifest, or from another program, as a collection.

`orphan` lists the importers with the first bytes of their files: its own copies Vecstow's files, `dvecdb`
reads d-vecDB's. An importer only reads its source. The collection is made in `.staging/` and takes its place
by a rename.
"""

from vecstow_engine.importers.orphan import import_orphan

__all__ = ["import_orphan"]
