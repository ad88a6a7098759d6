"""Read the sources of logs: files, rotated sets, archives, standard input, pastes, and files that grow."""
