"""The worker: the code that runs inside an AWS Lambda execution environment.

This package is copied as it is into the Lambda function's zip, beside cloudpickle, obstore and blake3. It never
imports `wren_backends`; the client imports the wire format from here.
"""
