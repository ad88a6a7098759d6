"""The types of SR: one module for each, and one registry."""
