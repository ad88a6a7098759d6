"""VhdImage -> Diagnosis: the table of what can be wrong, how to see it, how to mend it. Pure."""
