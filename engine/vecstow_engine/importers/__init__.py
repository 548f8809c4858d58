"""The import of data files without a manifest, or from another program, as a collection.

`orphan` copies Vecstow's own files, and calls the importer of another format: the function `build` of a
package here, now `dvecdb`. An importer only reads its source. The collection is made in `.staging/` and takes
its place by a rename.
"""

from vecstow_engine.importers.orphan import import_orphan

__all__ = ["import_orphan"]
