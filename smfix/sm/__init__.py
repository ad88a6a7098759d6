"""The storage manager (SM): its paths, locks and journals, and its types of SR."""
