"""Bytes of a storage log -> incidents."""
