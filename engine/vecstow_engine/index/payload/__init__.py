"""Payload indexes: the declared fields of all payloads as columns by slot, which answer filters.

    coders           values of one type as numbers, and the comparisons of these numbers
    word_order       the order of distinct strings
    arrays           the arrays of one field: their elements, and how many each slot has
    column           one field: kind and code of each slot's value
    fields           the values of the declared fields of a payload
    evaluation       a filter over columns: the slots that match for certain, and those that may match
    payload_columns  all columns of a declaration, with their writers
    columns_file     payload.bin
    payload_indexes  the columns in use, and those of a newer declaration

A column is exact or says that it does not know. A reader takes the live slots first, and the columns after
that: the columns of a slot are written before the slot becomes live, and stay until the slot is used again. A
point whose slot was used again during an evaluation is one that may match.
"""
