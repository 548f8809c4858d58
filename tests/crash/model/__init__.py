"""The part "model": whatever is done to an engine, in whatever order, it tells what a dictionary would.

world        what must be there: collections, dropped ones, backups, and each one's points
site         the engine at work on its volume: started, stopped, killed
machine      what every rule needs, and the question asked after each step
draws        what the rules are given, and when they may be chosen
points, collections, upkeep, starts
             what may be done, in any order
engine       all of that together
part         batches of examples
"""
