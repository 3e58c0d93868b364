"""Many calls under many faults at once."""
