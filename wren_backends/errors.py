"""The errors that users see, and nothing else.

    WrenError
    +-- ConfigError (also ValueError)       a setting is wrong or missing
    +-- DeploymentError                     the function, bucket or role is not as it has to be
    |   +-- ProtocolMismatchError           client and function are of different versions
    +-- SerializationError (also pickle.PicklingError)   something cannot be pickled or unpickled
    +-- StorageError                        S3 refused, lost or could not be reached
    |   +-- TamperedObjectError             an object is not what was put there
    |   +-- UnknownJobError                 there are no objects of such a job
    +-- InvocationError                     AWS Lambda could not run a call to its end
    |   +-- ThrottledError                  no concurrency for it within the retry budget
    |   +-- InvocationTimeoutError          the function's time limit
    |   +-- OutOfMemoryError                the function's memory limit
    |   +-- EnvironmentLostError            the execution environment died
    |   +-- CallStoppedError                the client gave the call up before it was begun
    |   +-- CallExitedError                 the call ended its process with sys.exit or the like
    +-- BrokenWrenExecutor (also concurrent.futures.BrokenExecutor)   the executor takes no more calls

Each has one argument, its message, so that it survives pickling. A message names the call, the cause and the next step.
"""

from __future__ import annotations

import pickle
from concurrent.futures import BrokenExecutor


class WrenError(Exception):
    """Base of every error this library raises on its own account."""


class ConfigError(WrenError, ValueError):
    """A setting is wrong or missing."""


class DeploymentError(WrenError):
    """The AWS side is missing or not as it has to be; the message says how to mend it."""


class ProtocolMismatchError(DeploymentError):
    """The function's Python or wren-backends version differs from the client's."""


class SerializationError(WrenError, pickle.PicklingError):
    """A function, argument, result or exception cannot be pickled, or not unpickled where it arrived."""


class StorageError(WrenError):
    """S3 refused a request, lost an object or could not be reached."""


class TamperedObjectError(StorageError):
    """An object in the bucket is not what client or worker put there; it was not unpickled."""


class UnknownJobError(StorageError):
    """There are no objects of such a job in the bucket."""


class InvocationError(WrenError):
    """AWS Lambda could not run a call to its end."""


class ThrottledError(InvocationError):
    """Lambda refused the invocation for lack of concurrency until the retry budget was spent."""


class InvocationTimeoutError(InvocationError):
    """The call was still running at the function's time limit."""


class OutOfMemoryError(InvocationError):
    """The call needed more than the function's memory."""


class EnvironmentLostError(InvocationError):
    """The execution environment died under the call."""


class CallStoppedError(InvocationError):
    """The client gave the call up before a worker began it; seen by those who attach to its job."""


class CallExitedError(InvocationError):
    """The call raised SystemExit or KeyboardInterrupt, which would otherwise end the client's process.

    Attributes:
        interrupted: Whether it was KeyboardInterrupt.
    """

    interrupted: bool = False


class BrokenWrenExecutor(WrenError, BrokenExecutor):
    """The executor takes no more calls: its initializer failed, or the local cloud has ended."""
