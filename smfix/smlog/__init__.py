"""From the bytes of a storage manager's log to the incidents they tell of."""
