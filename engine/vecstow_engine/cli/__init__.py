"""The command line `vecstow`: reads arguments and settings, prints for people or programs.

Charter: a module here parses arguments, runs the command and prints the answer. A command runs the server
(`serve`), uses a volume without an engine (`--data`), or calls an engine over REST (`--url`). No module
decides about data. A command imports heavy modules (numpy, httpx, the server) itself, so that
`vecstow --help` answers at once.
"""
