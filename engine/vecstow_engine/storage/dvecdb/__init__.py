"""Reading d-vecDB's `vectors.bin`; nothing here writes. The format, and what cannot be known of it, is
described in docs/dvecdb-format.md.

Charter: `source` reads the file in blocks, `heads` knows where a record begins, `untagged` and `fields` read
metadata that was stored without types, `reader` joins them, `report` is what they hand out.
"""

from vecstow_engine.storage.dvecdb.heads import detect
from vecstow_engine.storage.dvecdb.reader import read_batches, read_vectors
from vecstow_engine.storage.dvecdb.report import Doubt, ForeignPoint, ForeignReport, Skipped

__all__ = ["Doubt", "ForeignPoint", "ForeignReport", "Skipped", "detect", "read_batches", "read_vectors"]
