"""Faults on the real HTTP paths: what networks and services do, done on purpose."""
