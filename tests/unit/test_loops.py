"""A program ends well although the system leaves a thread of obstore's waiting just then."""

SLOW_THREADS = """
    import asyncio
    import threading
    import time

    tell = asyncio.SelectorEventLoop.call_soon_threadsafe
    slow = []

    def tell_slowly(self, *args, **more):
        told = tell(self, *args, **more)
        if isinstance(threading.current_thread(), threading._DummyThread):  # one that Python did not start
            slow.append(1)
            time.sleep(1)  # as if the system ran others first
        return told

    asyncio.SelectorEventLoop.call_soon_threadsafe = tell_slowly
"""


def ends_well(run_script, program):
    done = run_script(SLOW_THREADS + program + "\n    print(len(slow) > 0)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_after_the_last_word_of_a_job(run_script):
    ends_well(
        run_script,
        """
    from wren_backends import WrenExecutor

    with WrenExecutor(1, mode="s3") as executor:  # its record is written when it closes
        assert executor.submit(len, "ab").result() == 2
    """,
    )


def test_after_a_job_of_another_process_was_read(run_script):
    ends_well(
        run_script,
        """
    from wren_backends import WrenExecutor
    from wren_backends.config import Config
    from wren_backends.connection import connect
    from wren_backends.jobs import list_jobs

    with WrenExecutor(1, mode="s3") as executor:
        executor.submit(len, "ab").result()
    with WrenExecutor.attach(executor.job_id) as job:
        assert job.results() == {0: 2}
    assert executor.job_id in [one.job_id for one in list_jobs(connect(Config()))]
    """,
    )


def test_finalizers_may_come_by_at_any_moment(run_script):
    """Garbage is collected wherever something is made, be it within a submission or the telling of a loop."""
    done = run_script(
        """
    import gc
    import weakref

    from lambda_worker.protocol import BlobRef
    from wren_backends import WrenExecutor


    class Held:
        pass


    def let_go(executor, number):
        held = Held()
        held.itself = held
        weakref.finalize(held, executor.discard, [BlobRef("0" * 64, 1, executor.job_id, number)])


    with WrenExecutor(1) as executor:
        executor.submit(abs, -1).result()
        gc.set_threshold(1)
        futures = []
        for number in range(100):
            let_go(executor, number)
            futures.append(executor.submit(abs, -number))
        gc.set_threshold(700)
        print(sum(future.result() for future in futures))
    """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "4950\n", "")
