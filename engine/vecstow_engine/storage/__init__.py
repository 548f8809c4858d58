"""The volume: every file of a collection, its log, its checkpoints and its recovery. May import model alone."""
