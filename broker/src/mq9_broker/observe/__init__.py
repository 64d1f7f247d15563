"""What an operator sees: counters of the hot path, a census of the store, metrics, the admin pages, logs."""
