"""The import of data files without a manifest, or from another program, as a collection.

`orphan` chooses the importer by the first bytes of the file. Each format has a module or a package with a
function `build`: `own_files`, `dvecdb`. An importer only reads its source. The collection is made in
`.staging/` and takes its place by a rename.
"""

from vecstow_engine.importers.orphan import import_orphan

__all__ = ["import_orphan"]
