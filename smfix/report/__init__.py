"""Values -> text and JSON."""
