"""smfix: from a storage log to a repaired disk."""

__version__ = "0.1.0"
