"""Define the meaning of messages: tables whose rows carry samples and near misses. A new message is a new row."""
