"""This machine: its files, devices and processes. It knows no logs, no image formats and no SR types."""
