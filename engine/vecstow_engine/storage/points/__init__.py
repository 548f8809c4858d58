"""`points.db`: a SQLite database with the points of the last checkpoint.

`records` defines the rows and their checksums, `reader` reads them, and `writer` commits (the only module
that writes the file). `table_repair` rebuilds trees that do not lead to intact points.
"""
