"""Tests of the local cloud, through boto3 against a real one."""
