"""Where logs come from: files, rotated sets, archives, standard input, pastes, and files that grow."""
