"""What messages mean: tables whose rows carry samples and near misses. To teach smfix a message, add a row."""
