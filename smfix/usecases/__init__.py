"""What each command does: values in, values out, nothing printed."""
