"""The upstream projects' own tests, run against this project's surfaces; `python -m conformance_tests` runs them."""
