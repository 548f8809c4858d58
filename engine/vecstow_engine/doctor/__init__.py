"""Verification and repair of what lies on a volume: `check` only reads, `repair` sets aside and builds again.

Commands and routes enter here; nothing that a running engine needs does. `doctor` depends on `storage`, never
the other way round.
"""
