"""BM25 over the texts of payload fields.

Charter: texts enter under slots, and slots with scores are returned. A module here may import the standard
library, numpy, `vecstow_engine.model`, and other modules of this package. It touches no file and starts no
thread.

    fields               the search of several fields
    text_index           the index of one field: one thread-safe interface, and when blocks are merged
      ranking            the search: BM25 over the blocks, and words near a misspelt one
      postings           documents and postings in blocks, and the merge of blocks
      dictionary         the number of each word, and the words at one edit from another
      words              the words of a text
      saved              the index as bytes
"""
