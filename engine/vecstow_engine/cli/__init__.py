"""The command line `vecstow`: reads arguments and settings, prints for people or programs.

Charter: a module here parses what a person typed, asks the service (for `serve`), the volume's manifests or
an engine over REST, and prints the answer. It decides nothing about data. What is heavy (numpy, httpx, the
server) is imported inside the command that needs it, so that `vecstow --help` answers at once.
"""
