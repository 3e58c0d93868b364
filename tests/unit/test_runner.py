"""The worker's Runner runs events and delivers each outcome once, on a store in memory."""

import dataclasses
import io
import json
import os
import pickle
import sys
import tempfile
import threading
import uuid
import warnings
import zipfile

import cloudpickle
import numpy as np
import pytest
from obstore.store import MemoryStore

from lambda_worker import codec
from lambda_worker.cache import BlobCache
from lambda_worker.objects import ObjectStore, ObjectStoreError
from lambda_worker.protocol import (
    FRAME_BUDGET_BYTES,
    PROTOCOL,
    BlobRef,
    Event,
    Reply,
    WireCall,
    outcome_key,
    python_version,
)
from lambda_worker.runner import RefusedEventError, Runner

SECRET = b"s" * 32
JOB = "j-1"
KEY = codec.job_key(SECRET, JOB)


@pytest.fixture(autouse=True)
def own_temporary_directory(monkeypatch, tmp_path):
    """An execution environment has its own, which ends with it; here it is the test's."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


class World:
    """A runner, the bucket it works on, and the client's side of a conversation with it."""

    def __init__(self):
        self.memory = MemoryStore()
        self.store = ObjectStore(self.memory, "memory://bucket/prefix")
        self.runner = self.new_runner()

    def new_runner(self):
        """Another execution environment on the same bucket."""
        return Runner(SECRET, lambda bucket, prefix: ObjectStore(self.memory, f"{bucket}/{prefix}"), "log-stream")

    def event(self, *calls, function=None, **changes):
        """An event with one call of each argument tuple, or of each (function, arguments)."""
        functions = (cloud(function),) if function else tuple(cloud(one) for one, _ in calls)
        wire = tuple(
            WireCall(seq, 0 if function else seq, cloud((one if function else one[1], {})))
            for seq, one in enumerate(calls)
        )
        return Event(JOB, wire, functions, "bucket", "prefix", **changes)

    def send(self, event, request_id="r-1", runner=None):
        """What the client reads in the reply to an event."""
        raw = json.loads(json.dumps(event.to_json() if isinstance(event, Event) else event))
        return Reply.from_json(json.loads(json.dumps((runner or self.runner).run(raw, request_id))))

    def outcomes(self, event, **more):
        """The opened frame of a reply that has one."""
        return codec.unseal(self.send(event, **more).frame, KEY, JOB).outcomes

    def committed(self, seq=0):
        """The frame that lies in the bucket, or None."""
        try:
            return codec.unseal(self.store.get(outcome_key(JOB, seq)), KEY, JOB)
        except ObjectStoreError:
            return None

    def put(self, data):
        """Put a blob and return its name."""
        ref = BlobRef(codec.digest(data), len(data))
        self.store.put_blob(ref, data)
        return ref

    def value(self, outcome):
        """What an outcome holds, wherever its parts lie."""
        return codec.loads(
            [self.store.get_blob(part) if isinstance(part, BlobRef) else part for part in outcome.payload]
        )


def cloud(value):
    return (cloudpickle.dumps(value, protocol=5),)


@pytest.fixture
def world():
    return World()


def test_values_come_back_in_the_reply_in_the_order_of_the_calls(world):
    outcomes = world.outcomes(world.event((1,), (2,), (3,), function=lambda x: x * 10))
    assert [(one.seq, one.kind, world.value(one)) for one in outcomes] == [
        (0, "value", 10),
        (1, "value", 20),
        (2, "value", 30),
    ]
    assert world.committed() is None


def test_a_frame_says_where_it_was_made(world):
    event = world.event((), function=lambda: None)
    frames = [codec.unseal(world.send(event, request_id=f"r-{n}").frame, KEY, JOB) for n in range(2)]
    assert [frame.request_id for frame in frames] == ["r-0", "r-1"]
    assert [frame.events_before for frame in frames] == [0, 1]
    assert frames[0].log_stream == "log-stream"
    assert frames[0].environment_id == frames[1].environment_id != ""
    assert frames[0].rss_bytes > 1_000_000
    other = codec.unseal(world.send(event, runner=world.new_runner()).frame, KEY, JOB)
    assert other.environment_id != frames[0].environment_id


# ---- commit


def test_s3_mode_commits_and_says_so(world):
    reply = world.send(world.event((1,), (2,), function=lambda x: x, mode="s3"))
    assert reply == Reply(committed=True)
    assert [world.value(one) for one in world.committed().outcomes] == [1, 2]


def test_a_slow_event_is_committed_before_it_answers(world):
    event = world.event((5,), function=lambda x: x, commit_after_s=0.0)
    (answered,) = world.outcomes(event)
    (committed,) = world.committed().outcomes
    assert world.value(answered) == world.value(committed) == 5


def test_a_second_attempt_returns_the_first_outcome_without_running_again(world):
    ran = []
    function = Recorded("once", ran)
    first = world.event((), function=function, mode="s3")
    world.send(first)
    (again,) = world.outcomes(dataclasses.replace(first, attempt=2, mode="direct"), runner=world.new_runner())
    assert world.value(again) == "once"
    assert ran == ["once"]


def test_a_second_attempt_runs_and_commits_if_the_first_left_nothing(world):
    (outcome,) = world.outcomes(world.event((4,), function=lambda x: x, attempt=2))
    assert world.value(outcome) == world.value(world.committed().outcomes[0]) == 4


class Recorded:
    """Returns its name and records that it ran in a list of this process."""

    lists = {}  # noqa: RUF012  the point is that all share it

    def __init__(self, name, ran):
        self.name = name
        self.lists[name] = ran

    def __call__(self):
        Recorded.lists[self.name].append(self.name)
        return self.name


class Race:
    """Of two attempts, the second commits while the first still runs."""

    worlds = {}  # noqa: RUF012

    def __init__(self, world):
        self.name = uuid.uuid4().hex
        self.worlds[self.name] = world

    def __call__(self):
        world = Race.worlds[self.name]
        world.send(world.event((), function=lambda: "second", attempt=2, mode="s3"), runner=world.new_runner())
        return "first"


@pytest.fixture
def by_reference(monkeypatch):
    """Classes of this module are pickled by name, so that class attributes are this process's."""
    monkeypatch.setitem(sys.modules, Race.__module__, sys.modules[__name__])


@pytest.mark.usefixtures("by_reference")
@pytest.mark.parametrize("mode", ["direct", "s3"])
def test_of_two_attempts_the_first_outcome_stands(world, mode):
    reply = world.send(world.event((), function=Race(world), mode=mode, commit_after_s=0.0))
    assert world.value(world.committed().outcomes[0]) == "second"
    if mode == "direct":
        (outcome,) = codec.unseal(reply.frame, KEY, JOB).outcomes
        assert world.value(outcome) == "second"


# ---- refusals


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"protocol": PROTOCOL + 1}, "protocol"),
        ({"python": [2, 7]}, "python"),
        ({"calls": []}, "event"),
        ({"calls": None}, "event"),
        ({"mode": "x"}, "event"),
        ({"environment": {"A=B": "x"}}, "event"),
        ({"environment": {"A": "\0"}}, "event"),
    ],
)
def test_what_cannot_be_run_is_refused_with_a_reason(world, change, reason):
    raw = {**world.event((), function=lambda: None).to_json(), **change}
    reply = world.send(raw)
    assert (reply.refused, reply.frame) == (reason, None)
    assert reply.detail


def test_a_refusal_names_both_versions(world):
    ours = ".".join(map(str, python_version()))
    reply = world.send({**world.event((), function=lambda: None).to_json(), "python": [2, 7]})
    assert "2.7" in reply.detail
    assert ours in reply.detail


@pytest.mark.parametrize("raw", [None, [], "x", {}, {"protocol": PROTOCOL}])
def test_junk_is_refused(world, raw):
    assert world.send(raw).refused in ("event", "protocol")


def test_a_store_that_fails_is_a_refusal(world):
    class Broken(ObjectStore):
        def create(self, key, data):
            raise ObjectStoreError("no S3 today")

    runner = Runner(SECRET, lambda bucket, prefix: Broken(world.memory, bucket))
    with pytest.raises(RefusedEventError, match=r'"refused": "storage".*no S3 today'):
        world.send(world.event((), function=lambda: None, mode="s3"), runner=runner)
    # A direct reply has the frame itself.
    assert world.send(world.event((), function=lambda: None, commit_after_s=0.0), runner=runner).frame


def test_a_refusal_of_an_asynchronous_event_is_raised(world):
    with pytest.raises(RefusedEventError, match="initializer"):
        world.send(world.event((), function=lambda: None, initializer=cloud((lambda: 1 / 0, ())), mode="s3"))


# ---- initializer


def initializer_event(world, initializer, **changes):
    return world.event((), function=lambda: None, initializer=cloud((initializer, ())), **changes)


@pytest.mark.usefixtures("by_reference")
def test_the_initializer_runs_once_per_environment_and_job(world):
    ran = []
    event = initializer_event(world, Recorded("init", ran))
    world.send(event)
    world.send(event)
    assert len(ran) == 1
    world.send(event, runner=world.new_runner())
    assert len(ran) == 2
    world.send(dataclasses.replace(event, job_id="j-2"))
    assert len(ran) == 3


@pytest.mark.parametrize("exception", ["ValueError('bad start')", "SystemExit('bad start')"])
def test_a_failing_initializer_is_a_refusal_with_its_traceback(world, exception):
    def initializer():
        raise eval(exception)

    reply = world.send(initializer_event(world, initializer))
    assert reply.refused == "initializer"
    assert "bad start" in reply.detail
    assert "Traceback" in reply.detail
    assert world.send(initializer_event(world, lambda: None)).frame


# ---- errors of calls


def test_a_users_exception_is_an_outcome_with_its_traceback(world):
    def fails(x):
        raise KeyError(x)

    bad, good = world.outcomes(world.event((fails, ("k",)), (lambda: 1, ())))
    assert (bad.kind, good.kind) == ("error", "value")
    error = world.value(bad)
    assert type(error) is KeyError
    assert error.args == ("k",)
    assert "in fails" in bad.detail
    assert "lambda_worker" not in bad.detail


def test_ends_of_the_process_stay_outcomes(world):
    def leave(kind):
        raise kind("away")

    outcomes = world.outcomes(world.event((SystemExit,), (KeyboardInterrupt,), function=leave))
    assert [(one.kind, one.reason) for one in outcomes] == [("failed", "exited")] * 2
    assert "SystemExit('away')" in outcomes[0].detail


def test_what_cannot_be_pickled_is_said(world):
    class UnpicklableError(Exception):
        def __init__(self):
            super().__init__(threading.Lock())

    def fails():
        raise UnpicklableError

    value, error = world.outcomes(world.event((threading.Lock, ()), (fails, ())))
    assert (value.kind, value.reason) == ("failed", "unpicklable_value")
    assert "lock" in value.detail
    assert (error.kind, error.reason) == ("failed", "unpicklable_error")
    assert "in fails" in error.detail


def test_arguments_that_cannot_be_unpickled_are_said(world):
    event = Event(JOB, (WireCall(0, 0, (b"junk",)),), (cloud(lambda: 1),), "bucket", "prefix")
    (outcome,) = world.outcomes(event)
    assert (outcome.kind, outcome.reason) == ("failed", "unloadable")


def test_no_call_sees_what_another_did_to_the_function(world):
    memory = []

    def remembers():
        memory.append(1)
        return len(memory)

    assert [world.value(one) for one in world.outcomes(world.event((), (), function=remembers))] == [1, 1]


# ---- blobs


def call_with(world, arguments, **changes):
    wire = WireCall(0, 0, arguments, changes.pop("shared_from_bytes", 0))
    return Event(JOB, (wire,), (cloud(lambda x: x.sum()),), "bucket", "prefix", **changes)


def blob_arguments(world, array):
    pickled, buffer = codec.dumps(((array,), {}))
    return (pickled, world.put(bytes(buffer)))


def test_arguments_in_blobs_are_fetched_once_per_environment(world):
    event = call_with(world, blob_arguments(world, np.ones(10_000)))
    frames = [codec.unseal(world.send(event).frame, KEY, JOB) for _ in range(2)]
    assert [world.value(frame.outcomes[0]) for frame in frames] == [10_000, 10_000]
    assert [frame.s3_requests.get("GET", 0) for frame in frames] == [1, 0]


def test_a_shared_blob_is_read_only(world):
    def writes(x):
        x[:] = 0

    wire = WireCall(0, 0, blob_arguments(world, np.ones(10_000)), 1000)
    (outcome,) = world.outcomes(Event(JOB, (wire,), (cloud(writes),), "bucket", "prefix"))
    assert outcome.kind == "error"
    assert "read-only" in outcome.detail


def test_a_missing_blob_fails_its_call_alone(world):
    missing = BlobRef(codec.digest(b"nowhere"), 7)
    calls = (WireCall(0, 0, (missing,)), WireCall(1, 0, cloud(((np.ones(3),), {}))))
    gone, fine = world.outcomes(Event(JOB, calls, (cloud(lambda x: x.sum()),), "bucket", "prefix"))
    assert (gone.kind, gone.reason) == ("failed", "missing_blob")
    assert missing.digest in gone.detail
    assert world.value(fine) == 3


def test_a_tampered_blob_is_not_unpickled(world):
    arguments = blob_arguments(world, np.ones(10_000))
    world.store.put_blob(arguments[1], b"\0" * arguments[1].size)
    (outcome,) = world.outcomes(call_with(world, arguments))
    assert (outcome.kind, outcome.reason) == ("failed", "tampered_blob")


def test_a_tampered_pickle_does_not_run(world, tmp_path):
    trap = pickle.dumps(Trap(str(tmp_path / "sprung")))
    ref = BlobRef(codec.digest(b"x" * len(trap)), len(trap))
    world.store.put_blob(ref, trap)
    (outcome,) = world.outcomes(call_with(world, (ref,)))
    assert outcome.reason == "tampered_blob"
    assert not (tmp_path / "sprung").exists()


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_large_results_go_to_blobs_of_the_job(world):
    size = FRAME_BUDGET_BYTES // 2 + 100
    first, second = world.outcomes(world.event((size,), (size,), function=lambda n: np.ones(n, np.uint8)))
    assert not any(isinstance(part, BlobRef) for part in first.payload)
    (ref,) = [part for part in second.payload if isinstance(part, BlobRef)]
    assert (ref.job_id, ref.size) == (JOB, size)
    assert world.value(second).sum() == size


def test_large_errors_are_spilled_too(world):
    def fails():
        raise ValueError("x" * (FRAME_BUDGET_BYTES + 1))

    (outcome,) = world.outcomes(world.event((), function=fails, forward_output=False))
    assert len(world.value(outcome).args[0]) == FRAME_BUDGET_BYTES + 1


def test_the_cache_holds_no_more_than_its_limit():
    cache = BlobCache(100)
    fetched = []

    def fetch(ref):
        fetched.append(ref.digest[0])
        return memoryview(bytes(ref.size))

    def ask(letter, size=40):
        cache.get(BlobRef(letter * 64, size), fetch, writable=False)

    for letter in "abac":  # b is the least recently used when c comes
        ask(letter)
    ask("a")
    ask("b")
    assert "".join(fetched) == "abcb"
    ask("d", size=101)
    ask("d", size=101)
    assert "".join(fetched) == "abcbdd"


@pytest.mark.parametrize("items", [10_000, 500_000])
def test_arrays_of_every_size_can_be_written_to(world, items):
    def clears(x):
        total = x.sum()
        x[:] = 0
        return total

    wire = WireCall(0, 0, blob_arguments(world, np.ones(items)))
    event = Event(JOB, (wire,), (cloud(clears),), "bucket", "prefix")
    assert [world.value(world.outcomes(event)[0]) for _ in range(2)] == [items, items]


@pytest.mark.parametrize("size", [1000, 3 * 1024 * 1024])  # from 1 MB on a blob is a memory file
def test_what_one_call_writes_to_a_cached_blob_no_other_sees(size):
    cache = BlobCache(10 * size)
    ref = BlobRef("a" * 64, size)

    def get(writable):
        return memoryview(cache.get(ref, lambda _: memoryview(bytes(size)), writable=writable))

    first, shared = get(True), get(False)
    first[0] = 7
    assert (first[0], shared[0], get(True)[0], get(False)[0]) == (7, 0, 0, 0)
    if size > 1000:
        with pytest.raises(TypeError):
            shared[0] = 1


# ---- the user's modules


def bundle_of(files):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as bundle:
        for name, text in files.items():
            bundle.writestr(zipfile.ZipInfo(name), text)
    return packed.getvalue()


@pytest.fixture
def forget_modules():
    """Undo what bundles do to this process."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.mark.usefixtures("forget_modules")
def test_a_changed_bundle_replaces_the_one_before(world):
    for answer in (1, 2, 1):
        bundle = bundle_of(
            {
                "users_own_module/__init__.py": "from users_own_module.part import answer",
                "users_own_module/part.py": f"def answer(): return {answer}",
            }
        )
        event = world.event((), function=lambda: __import__("users_own_module").answer(), modules=world.put(bundle))
        assert world.value(world.outcomes(event)[0]) == answer


@pytest.mark.usefixtures("forget_modules")
def test_an_unchanged_bundle_is_neither_fetched_nor_imported_again(world):
    bundle = bundle_of({"users_own_module.py": "import uuid\nname = uuid.uuid4().hex\ndef answer(): return name"})
    event = world.event((), function=lambda: __import__("users_own_module").answer(), modules=world.put(bundle))
    frames = [codec.unseal(world.send(event).frame, KEY, JOB) for _ in range(2)]
    assert world.value(frames[0].outcomes[0]) == world.value(frames[1].outcomes[0])
    assert frames[1].s3_requests.get("GET", 0) == 0


@pytest.mark.usefixtures("forget_modules")
@pytest.mark.parametrize(
    ("damage", "reason"), [("missing", "missing"), ("tampered", "tampered"), ("no zip", "event"), ("escape", None)]
)
def test_a_bundle_that_cannot_be_used_is_a_refusal(world, damage, reason, tmp_path):
    data = bundle_of({"../../../../../../escaped.py": "x = 1"}) if damage == "escape" else b"PK no zip"
    ref = BlobRef(codec.digest(data), len(data))
    if damage != "missing":
        world.store.put_blob(ref, data if damage != "tampered" else b"x" * len(data))
    reply = world.send(world.event((), function=lambda: None, modules=ref))
    assert reply.refused == (reason or "")
    if damage == "escape":
        assert not os.path.exists("/escaped.py")


# ---- printed text and warnings


def test_text_and_warnings_are_captured(world):
    def speaks():
        print("out")
        print("err", file=sys.stderr)
        warnings.warn("careful", RuntimeWarning, stacklevel=1)

    (outcome,) = world.outcomes(world.event((), function=speaks))
    assert (outcome.stdout, outcome.stderr) == ("out\n", "err\n")
    ((module, name, text, _, _),) = outcome.caught
    assert (module, name, text) == ("builtins", "RuntimeWarning", "careful")


def test_text_also_goes_to_the_log(world, capsys):
    world.outcomes(world.event((), function=lambda: print("for the log")))
    assert capsys.readouterr().out.splitlines() == [
        "invocation.begun job=j-1 request=r-1 attempt=1 calls=0",
        "for the log",
    ]


def test_text_of_a_call_that_raises_is_captured(world):
    def fails():
        print("before")
        raise ValueError

    (outcome,) = world.outcomes(world.event((), function=fails))
    assert (outcome.kind, outcome.stdout) == ("error", "before\n")


def test_capture_is_per_call(world):
    outcomes = world.outcomes(world.event((1,), (2,), function=print))
    assert [one.stdout for one in outcomes] == ["1\n", "2\n"]


def test_capture_is_bounded(world):
    def floods():
        for _ in range(200):
            print("x" * 1000)
        for number in range(1000):
            warnings.warn("w" * 10_000 + str(number), UserWarning, stacklevel=1)

    (outcome,) = world.outcomes(world.event((), function=floods))
    assert 60_000 < len(outcome.stdout) < 70_000
    assert "more was printed" in outcome.stdout
    assert 1 <= len(outcome.caught) <= 50
    assert all(len(text) <= 4000 for _, _, text, _, _ in outcome.caught)


def test_nothing_is_captured_if_nothing_is_wanted(world, capsys):
    (outcome,) = world.outcomes(world.event((), function=lambda: print("hello"), forward_output=False))
    assert (outcome.stdout, outcome.caught) == ("", ())
    assert capsys.readouterr().out.splitlines()[1:] == ["hello"]


def test_streams_and_filters_are_put_back(world):
    streams, filters = (sys.stdout, sys.stderr), list(warnings.filters)
    world.outcomes(world.event((), function=lambda: print("x")))
    assert (sys.stdout, sys.stderr) == streams
    assert warnings.filters == filters


def test_environment_variables_are_set_for_the_calls_only(world, monkeypatch):
    monkeypatch.setenv("WREN_TEST_OLD", "before")
    monkeypatch.delenv("WREN_TEST_NEW", raising=False)
    event = world.event(
        (),
        function=lambda: (os.environ["WREN_TEST_OLD"], os.environ["WREN_TEST_NEW"]),
        worker_environment={"WREN_TEST_OLD": "during", "WREN_TEST_NEW": "too"},
    )
    assert world.value(world.outcomes(event)[0]) == ("during", "too")
    assert os.environ["WREN_TEST_OLD"] == "before"
    assert "WREN_TEST_NEW" not in os.environ
