"""`wren setup` and its like, on the local cloud by way of a guard that counts requests and grants as IAM does."""
