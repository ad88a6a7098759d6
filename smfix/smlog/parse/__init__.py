"""From bytes to lines: the search for literals, the window over the text, prefixes, times."""
