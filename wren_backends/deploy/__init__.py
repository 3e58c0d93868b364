"""Everything that makes the AWS side exist: packages, role, function."""
