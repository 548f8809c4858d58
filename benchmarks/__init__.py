"""How fast the engine is, measured from outside: `python -m benchmarks`.

One module per benchmark; each yields figures and knows nothing of how they are shown. A benchmark drives a
real `vecstow serve` over REST, and measures hnswlib alone in the same run, so that its ratio holds
on another machine too. `harness` has what they share. Nothing here imports the engine, but for what an
operation costs without it, and for the text index, which is compared with others of its kind.
"""
