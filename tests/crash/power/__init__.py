"""The power goes: what a disk may then have is built from a record of the system calls, and recovered from.

`trace` records, `reader` follows it into events of one volume, `disk` knows what is durable after them,
`content` and `states` choose what else is there, `proof` recovers it and compares with what was acknowledged.
"""
