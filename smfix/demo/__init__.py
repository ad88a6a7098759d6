"""`smfix demo`: a throw-away SR, damaged and repaired."""
