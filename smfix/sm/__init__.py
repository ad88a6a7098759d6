"""The storage manager, said once: its paths, locks, journals, and kinds of SR."""
