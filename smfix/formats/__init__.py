"""Image formats: bytes to values, problems, proofs. Pure."""
