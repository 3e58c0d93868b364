"""What runs where, and when a value is let go of: the pure part of `wren_backends/graph/`."""

import operator
import time

import pytest
from dask._task_spec import Alias, DataNode, Task, TaskRef

from lambda_worker.batches import run_step
from wren_backends import ConfigError
from wren_backends.graph.board import Board
from wren_backends.graph.costs import WORTH_S, Costs
from wren_backends.graph.grow import Limits, grow
from wren_backends.graph.inline import InlineBudget
from wren_backends.graph.plan import make_plan
from wren_backends.graph.step import is_one_branch, nodes_of

SMALL, LARGE = WORTH_S / 10, 10.0


def inc(value):
    return value + 1


def add(*values):
    return sum(values)


def step_of(graph, wanted, first=None, cost=LARGE, **limits):
    """The step that begins with `first`, or with what goes first."""
    board = board_of(graph, wanted)
    costs = cost if callable(cost) else lambda key: cost
    return grow(board, first or board.pop(), Limits(longest_s=1000.0, cost=costs, **limits))


def board_of(graph, wanted, urgency=None):
    return Board(make_plan(graph, wanted), urgency or {})


CHAIN = {"a": 1, "b": (inc, "a"), "c": (inc, "b"), "d": (inc, "c")}
DIAMOND = {"a": (inc, 1), "left": (inc, "a"), "right": (inc, "a"), "end": (add, "left", "right")}
TREE = {**{f"leaf{n}": (inc, n) for n in range(4)}, "low": (add, "leaf0", "leaf1"), "high": (add, "leaf2", "leaf3")}
TREE["top"] = (add, "low", "high")


# The plan.


def test_nodes_are_sorted_by_what_becomes_of_them():
    graph = {**CHAIN, "data": [1, 2], "other": "d", "unneeded": (inc, "a"), "finalize-x": (list, ["other", "data"])}
    plan = make_plan(graph, ["finalize-x"])
    assert plan.work == {"b", "c", "d"}
    assert plan.here == {"finalize-x"}
    assert plan.data == {"a", "data"}
    assert plan.targets == {"other": "d"}
    assert plan.home == {"finalize-x", "d", "data"}
    assert "unneeded" not in plan.nodes


def test_the_users_own_finalizing_is_work():
    plan = make_plan({"finalize_model-1": Task("finalize_model-1", inc, 1)}, ["finalize_model-1"])
    assert plan.work == {"finalize_model-1"}


def test_what_gathers_results_for_a_further_task_is_work():
    plan = make_plan({"finalize-x": (inc, 1), "y": (inc, "finalize-x")}, ["finalize-x", "y"])
    assert plan.work == {"finalize-x", "y"}
    assert make_plan({"finalize-x": (inc, 1)}, ["finalize-x"], gather_here=False).work == {"finalize-x"}


def test_aliases_of_aliases_stand_for_the_same():
    plan = make_plan({"x": (inc, 1), "y": "x", "z": "y", "end": (inc, "z")}, ["end", "z"])
    assert plan.needs["end"] == ("x",)
    assert plan.home == {"end", "x"}
    assert [node.key for node in nodes_of(["end"], plan)] == ["y", "z", "end"]


def test_small_data_travels_within_the_task_that_needs_it():
    plan = make_plan({"n": 1, "s": "x" * 1000, "end": Task("end", add, TaskRef("n"), TaskRef("s"))}, ["end"])
    assert [node.key for node in nodes_of(["end"], plan)] == ["n", "end"]


@pytest.mark.parametrize(
    ("graph", "error"),
    [
        ({"a": 1}, KeyError),
        ({"x": (inc, TaskRef("nowhere"))}, ValueError),
        ({("zpartd-1",): (dict,), "x": (len, ("zpartd-1",))}, ConfigError),
    ],
)
def test_graphs_that_cannot_be_computed_are_refused(graph, error):
    with pytest.raises(error):
        make_plan(graph, ["x"])


# Steps.


def test_a_chain_is_one_step_however_long_its_tasks_take():
    assert step_of(CHAIN, ["d"], cost=LARGE) == ["b", "c", "d"]


def test_a_chain_ends_where_it_would_take_too_long():
    assert step_of(CHAIN, ["d"], cost=400.0) == ["b", "c"]


def test_a_chain_goes_on_where_its_other_inputs_are_there_already():
    graph = {"data": [1], "a": (inc, 1), "b": (add, "a", "data")}
    assert step_of(graph, ["b"], first="a") == ["a", "b"]


def test_branches_run_side_by_side():
    assert step_of(DIAMOND, ["end"], cost=LARGE) == ["a"]


def test_light_tasks_run_where_their_inputs_are():
    graph = {"big": (inc, 1), **{f"piece{n}": (operator.getitem, "big", n) for n in range(3)}}
    graph["end"] = (add, *(f"piece{n}" for n in range(3)))
    plan = make_plan(graph, ["end"])
    unmeasured = Costs()
    step = step_of(graph, ["end"], cost=lambda key: unmeasured.of(key, plan.nodes[key]))
    assert (step[0], set(step[1:4])) == ("big", {"piece0", "piece1", "piece2"})


def test_pieces_are_taken_where_the_whole_is_however_long_that_takes():
    graph = {"big": (inc, 1), "piece": (operator.getitem, "big", 0), "other": (add, "big")}
    step = step_of(graph, ["piece", "other"], cost=LARGE, cuts=lambda key: key == "piece")
    assert step == ["big", "piece"]


def test_small_fan_ins_are_one_step_with_all_that_they_wait_for():
    step = step_of(TREE, ["top"], cost=SMALL)
    assert set(step) == set(TREE)
    assert all(step.index(leaf) < step.index("top") for leaf in step if leaf != "top")


def test_large_fan_ins_are_not():
    assert step_of(TREE, ["top"], first="leaf0", cost=LARGE) == ["leaf0"]


def test_a_fan_in_is_taken_in_as_far_as_it_is_worth_it():
    assert set(step_of(TREE, ["top"], first="leaf0", cost=WORTH_S / 3)) == {"leaf0", "leaf1", "low"}


MANY = {**{f"one{n}": (inc, n) for n in range(5000)}, "all": (add, *(f"one{n}" for n in range(5000)))}


def test_small_tasks_that_are_ready_go_together():
    board = board_of(MANY, ["all"])
    limits = Limits(1000.0, lambda key: WORTH_S / 10)
    steps = []
    while (first := board.pop()) is not None:
        steps.append(grow(board, first, limits))
        board.claim(steps[-1])
    assert {len(step) for step in steps} == {10}
    assert sorted(key for step in steps for key in step) == sorted(set(MANY) - {"all"})


def test_what_one_step_takes_in_that_has_nothing_to_do_with_it_is_bounded():
    assert 2 < len(step_of(MANY, ["all"], cost=0.0)) <= 200


def test_large_tasks_and_those_of_other_traits_do_not_go_with_small_ones():
    board = board_of(MANY, ["all"])
    first, other = board.pop(), board.pop()
    board.release([other])
    assert grow(board, first, Limits(1000.0, lambda key: LARGE if key == other else SMALL)) == [first]
    assert grow(board, first, Limits(1000.0, lambda key: SMALL, alike=lambda one, two: one == two)) == [first]
    assert board.pop() == other


def test_fetching_large_values_is_not_small():
    board = board_of(TREE, ["top"])
    for leaf in ("leaf0", "leaf1"):
        board.claim([leaf])
        board.finish([leaf], {leaf: 10**9})
    assert grow(board, "leaf2", Limits(1000.0, lambda key: SMALL)) == ["leaf2", "leaf3", "high"]


def test_what_could_run_side_by_side_is_told_from_what_could_not():
    assert is_one_branch(["b", "c", "d"], make_plan(CHAIN, ["d"]))
    assert is_one_branch(["a", "left", "right"], make_plan(DIAMOND, ["end"]))
    assert not is_one_branch(["leaf0", "leaf1", "low"], make_plan(TREE, ["top"]))


def test_what_has_to_go_alone_does():
    assert step_of(CHAIN, ["d"], alone=lambda key: key == "c") == ["b"]
    assert step_of(CHAIN, ["d"], alone=lambda key: key == "b") == ["b"]


def test_tasks_of_other_traits_are_not_in_the_same_step():
    assert step_of(CHAIN, ["d"], alike=lambda one, other: (one == "d") == (other == "d")) == ["b", "c"]


# The board.


def test_priorities_go_before_dasks_order():
    graph = {f"x{n}": (inc, n) for n in range(3)}
    usual = board_of(graph, list(graph))
    order = [usual.pop() for _ in graph]
    board = board_of(graph, list(graph), {order[2]: 1.0, order[0]: -1.0})
    assert [board.pop() for _ in graph] == order[::-1]


def test_a_value_goes_when_nobody_needs_it_any_more():
    board = board_of(DIAMOND, ["end"])
    assert board.pop() == "a"
    board.claim(["a"])
    assert board.pop() is None
    assert board.finish(["a"], {"a": 1}) == []
    assert board.finish(["left"], {"left": 1}) == []
    assert board.finish(["right"], {"right": 1}) == ["a"]
    assert not board.is_done
    assert set(board.finish(["end"], {"end": 1})) == {"left", "right"}
    assert board.is_done


def test_what_is_lost_is_made_again_with_what_it_needs():
    board = board_of(DIAMOND, ["end"])
    for key in ("a", "left", "right"):
        board.finish([key], {key: 1})
    assert set(board.lose(["left"])) == {"left", "a"}
    assert board.pop() == "a"
    board.finish(["a"], {"a": 1})
    assert board.pop() == "left"
    board.finish(["left"], {"left": 1})
    assert board.pop() == "end"


def test_what_was_only_needed_inside_a_step_is_made_again_when_somebody_needs_it_after_all():
    graph = {"a": (inc, 1), "b": (inc, "a"), "c": (inc, "b"), "end": (add, "c", "d"), "d": (inc, 2)}
    board = board_of(graph, ["end"])
    board.finish(["a", "b"], {"b": 1})
    board.finish(["c"], {"c": 1})
    assert set(board.lose(["c"])) == {"a", "b", "c"}
    board.claim(["a"])
    board.finish(["a"], {})
    assert board.pop() in ("a", "d")


def test_released_tasks_are_ready_again():
    board = board_of(CHAIN, ["d"])
    assert board.pop() == "b"
    board.claim(["b", "c"])
    assert board.pop() is None
    board.release(["b", "c"])
    assert board.pop() == "b"


# Bytes that pass through the client.


def test_promises_never_exceed_what_the_client_is_to_hold():
    budget = InlineBudget(1 << 30)
    assert sum(budget.promise(1) for _ in range(100_000)) <= 32 * 1024 * 1024


def test_small_values_find_room_while_thousands_of_calls_are_under_way():
    budget = InlineBudget(1 << 30)
    assert min(budget.promise(1) for _ in range(4000)) >= 512
    assert InlineBudget(1 << 30).promise(1, expected=1000.0) == 2000
    assert InlineBudget(1 << 30).promise(1, expected=10.0) == 512


def test_what_many_need_is_named_rather_than_repeated():
    assert InlineBudget(1 << 20).promise(1) == 32 * 1024
    assert InlineBudget(1 << 20).promise(1000) == 1048
    assert InlineBudget(0).promise(1) == 0


def test_what_is_let_go_of_makes_room():
    budget = InlineBudget(1 << 20)
    before = budget.promise(1)
    while budget.promise(1) > before // 2:
        pass
    budget.settle(32 * 1024 * 1024, 0)
    assert budget.promise(1) == before


def test_measured_durations_take_the_place_of_guesses():
    costs = Costs()
    task, cut = Task("f-1", inc, 1), Task("g-1", operator.getitem, [1], 0)
    assert costs.of("g-1", cut) < WORTH_S < costs.of("f-1", task)
    costs.learn("f-1", task, 0.001)
    assert costs.of("f-2", task) == 0.001
    assert costs.of("d", DataNode("d", 1)) > 0


def test_the_largest_value_of_a_kind_is_expected_until_it_is_long_ago():
    costs, task = Costs(), Task("f-1", inc, 1)
    assert costs.size_of("f-1", task) is None
    costs.learn_size("f-1", task, 1000)
    costs.learn_size("f-1", task, 10)
    assert 500 < costs.size_of("f-2", task) < 1000
    costs.learn_size("f-1", task, 2000)
    assert costs.size_of("f-2", task) == 2000


def test_a_rest_is_sent_back_with_tasks_values_and_no_more():
    """Aliases stand for tasks, and constants travel with whoever needs them."""

    def slow():
        time.sleep(0.05)
        return 1

    tasks = (
        Task("made", slow),
        Alias("alias", "made"),
        DataNode("constant", 5),
        Task("rest", add, TaskRef("alias"), TaskRef("constant"), TaskRef("given")),
    )
    left = run_step(tasks, {"given": 7}, (("rest", 100),), patience_s=0.01)
    assert len(left.note) == 1
    assert left.values == [("made", 1, 0)]
    done = run_step(tasks, {"given": 7}, (("rest", 100),))
    assert done.values == [("rest", 13, 100)]
