"""VhdImage -> Diagnosis, by one table of everything that can be wrong. Pure."""
