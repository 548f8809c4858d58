"""The command line `vecstow`: reads arguments and settings, prints for people or programs."""
