"""The local cloud: S3 and Lambda on 127.0.0.1, made of real components."""
