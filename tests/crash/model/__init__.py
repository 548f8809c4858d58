"""The part "model": whatever is done to an engine, in whatever order, it tells what a dictionary would.

world     what must be there: collections, dropped ones, backups, and each one's points
site      the engine at work on its volume: started, stopped, killed
machine   what may be done, in any order
part      batches of examples
"""
