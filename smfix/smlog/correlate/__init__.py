"""From lines that mean something to incidents: which run, which command, which disk."""
