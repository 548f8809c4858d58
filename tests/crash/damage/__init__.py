"""The part "damage": every file of a volume damaged in every way, and started on.

    volume    a volume as a kill leaves it, and what it must serve
    kinds     ways to damage a file
    cases     which file, which way, where: by seed and number
    reading   all that an engine tells of one collection
    verdict   whether that is right, given what was damaged
    after     what is written afterwards, and read back after another start
    repaired  what a repair makes of it
    trial     one case from the damage to the verdict
    child     one case in a process of its own, which may die or hang
    part      batches of cases

A case ends in one of: answered rightly; rebuilt and answered rightly; `degraded` with the damaged points
withheld and listed; served, with the warning that a checkpoint may fail; quarantined with a message that
names the file; refused for a damaged VOLUME. Never a wrong answer, a crash or a hang, and never another
collection's loss.
"""
