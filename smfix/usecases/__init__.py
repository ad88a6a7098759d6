"""Compose the commands: values in, values out, nothing printed."""
