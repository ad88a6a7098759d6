"""This machine: where a VDI lives, how its image is opened, who holds it, which locks say so."""
