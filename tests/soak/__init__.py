"""A long run: clients, five keys, fifty collections, a memory limit, failing hnswlib, kills and full disks.

    python -m tests.soak --seconds 1800 --clients 20

Each round begins with a check of every point that was ever acknowledged, and ends with a kill or a stop. Each
collection must have answered in it. The product has no switch for faults: `faulty` starts its command with an
hnswlib that fails now and then.
"""
