"""The import of data files without a manifest, or from another program, as a collection.

`registry` finds the importer of a file, `importer` is the interface, and each format has a module or a
package: `own_files`, `dvecdb`. A new format is one more class in `registry.IMPORTERS`. An importer only reads
its source. The collection is made in `.staging/` and takes its place by a rename.
"""

from vecstow_engine.importers.registry import import_orphan
from vecstow_engine.importers.report import ImportReport

__all__ = ["ImportReport", "import_orphan"]
