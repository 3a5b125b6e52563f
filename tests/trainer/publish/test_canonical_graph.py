"""However an exporter names and orders what it came upon, the graph has the same bytes, and says the same."""

import random

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

from trainer.publish.canonical_graph import canonical

INPUTS = ("sequence", "noise")


def tower() -> ModelProto:
    """The mean of a sequence times a weight, with the batch's size read off twice, and a step that nobody needs."""
    nodes = [
        helper.make_node("Shape", ["sequence"], ["size"], "n1", start=0, end=1),
        helper.make_node("Shape", ["noise"], ["size_again"], "n2", start=0, end=1),
        helper.make_node("Constant", [], ["width"], "n3", value_ints=[2]),
        helper.make_node("Constant", [], ["width_again"], "n4", value_ints=[2]),
        helper.make_node("Concat", ["size", "width"], ["shape"], "n5", axis=0),
        helper.make_node("Concat", ["size_again", "width_again"], ["shape_again"], "n6", axis=0),
        helper.make_node("ReduceMean", ["sequence"], ["mean"], "n7", keepdims=0, noop_with_empty_axes=0),
        helper.make_node("Expand", ["mean", "shape"], ["mean_of_all"], "n8"),
        helper.make_node("Mul", ["mean_of_all", "weight"], ["scaled"], "n9"),
        helper.make_node("Reshape", ["scaled", "shape_again"], ["user"], "n10"),
        helper.make_node("Neg", ["scaled"], ["unused"], "n11"),
    ]
    values = {name: ["batch", 2] for name in (*INPUTS, "user")}
    sequence, noise, user = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in values.items())
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [2], [3.0, 5.0])
    graph = helper.make_graph(nodes, "main_graph", [sequence, noise], [user], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def disguised(model: ModelProto, seed: int) -> ModelProto:
    """The same graph with other names, in another order, with the batch's size read off other inputs."""
    chance, graph = random.Random(seed), model.graph
    kept = {*INPUTS, "weight", "user"}
    names = {each: f"{chance.getrandbits(30)}" for node in graph.node for each in node.output if each not in kept}
    for node in graph.node:
        node.name = f"node{chance.getrandbits(30)}"
        node.input[:] = [names.get(each, each) for each in node.input]
        node.output[:] = [names.get(each, each) for each in node.output]
        if node.op_type == "Shape":
            node.input[:] = [chance.choice(INPUTS)]
        attributes = sorted(node.attribute, key=lambda _: chance.random())
        del node.attribute[:]
        node.attribute.extend(attributes)
    there, left, nodes = kept - {"user"}, list(graph.node), []
    while left:
        ready = [node for node in left if there.issuperset(node.input)]
        nodes.append(chance.choice(ready))
        left.remove(nodes[-1])
        there |= {*nodes[-1].output}
    del graph.node[:]
    graph.node.extend(nodes)
    return model


@pytest.mark.parametrize("seed", range(20))
def test_a_graph_in_disguise_has_the_same_bytes(seed: int) -> None:
    expected, found = canonical(tower(), INPUTS), canonical(disguised(tower(), seed), INPUTS)
    assert found.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)


def test_it_says_what_it_said_and_does_nothing_twice() -> None:
    feed = {name: np.full((3, 2), 4, np.float32) for name in INPUTS}
    model = canonical(tower(), INPUTS)
    onnx.checker.check_model(model)
    before, after = (onnxruntime.InferenceSession(each.SerializeToString()) for each in (tower(), model))
    assert np.array_equal(before.run(["user"], feed)[0], after.run(["user"], feed)[0])
    kinds = [node.op_type for node in model.graph.node]
    assert kinds == ["ReduceMean", "Shape", "Constant", "Concat", "Expand", "Mul", "Reshape"]


def test_what_differs_stays_different() -> None:
    other = tower()
    next(node for node in other.graph.node if node.name == "n7").attribute[0].i = 1
    assert canonical(other, INPUTS).SerializeToString() != canonical(tower(), INPUTS).SerializeToString()


def test_two_draws_stay_two() -> None:
    draws = [helper.make_node("RandomNormal", [], [name], name, shape=[2], seed=1.0) for name in ("a", "b")]
    graph = helper.make_graph(
        [*draws, helper.make_node("Sub", ["a", "b"], ["user"], "c")],
        "g",
        [],
        [helper.make_tensor_value_info("user", TensorProto.FLOAT, [2])],
    )
    assert len(canonical(helper.make_model(graph), INPUTS).graph.node) == 3


def graph_of(nodes: list[NodeProto], outputs: list[str], *weights: TensorProto) -> ModelProto:
    """A model of these nodes on `sequence` and `noise`, with outputs of any shape."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in INPUTS]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "main_graph", inputs, results, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def node(kind: str, inputs: str, outputs: str, **attributes: int) -> NodeProto:
    """A node; names are divided by commas, and an empty one is left out."""
    return helper.make_node(kind, inputs.split(","), outputs.split(","), **attributes)


def sized(**attributes: int) -> list[NodeProto]:
    return [node("Shape", "sequence", "a", **attributes), node("Cast", "a", "user", to=TensorProto.FLOAT)]


STRANGE = {
    "two outputs of one value": ([node("Neg", "sequence", "user"), node("Neg", "sequence", "b")], ["user", "b"]),
    "an output that others use": (
        [node("Neg", "sequence", "a"), node("Neg", "sequence", "user"), node("Add", "a,user", "b")],
        ["user", "b"],
    ),
    "an output of two names": ([node("Neg", "sequence", "a"), node("Identity", "a", "user")], ["user", "a"]),
    "an output that is an input": ([node("Neg", "sequence", "user")], ["user", "sequence"]),
    "an output that is a weight": ([node("Add", "sequence,w", "user")], ["user", "w"]),
    "an output that one of two gives": (
        [
            node("Unique", "sequence", "a"),
            node("Unique", "sequence", "c,d"),
            node("Cast", "d", "e", to=1),
            node("Sum", "a,c,e", "user"),
        ],
        ["user"],
    ),
    "other outputs left out": (
        [
            node("Unique", "sequence", "a,b"),
            node("Unique", "sequence", "c,,d"),
            node("Sub", "b,d", "e"),
            node("Cast", "e", "f", to=1),
            node("Add", "a,f", "user"),
        ],
        ["user"],
    ),
    "as many parts as outputs": (
        [
            node("Split", "sequence", "a,b", axis=1),
            node("Split", "sequence", "c,d,e,f", axis=1),
            node("Concat", "b,f", "user", axis=1),
        ],
        ["user"],
    ),
    "an input left out": (
        [node("Clip", "sequence,,one", "a"), node("Clip", "sequence,one", "b"), node("Sub", "a,b", "user")],
        ["user"],
    ),
    "the shape from behind": (sized(start=-1), ["user"]),
    "the batch from behind": (sized(start=-2, end=-1), ["user"]),
    "the whole shape": (sized(), ["user"]),
    "no axis at all": (sized(start=0, end=0), ["user"]),
    "beyond the last axis": (sized(start=0, end=9), ["user"]),
}


@pytest.mark.parametrize("case", STRANGE)
def test_a_strange_graph_says_what_it_said(case: str) -> None:
    nodes, outputs = STRANGE[case]
    weights = [
        helper.make_tensor("w", TensorProto.FLOAT, [4], [1.0, 2.0, 3.0, 4.0]),
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        helper.make_tensor("k", TensorProto.INT64, [1], [2]),
    ]
    chance = np.random.default_rng(0)
    feed = {name: chance.normal(size=(3, 4)).astype(np.float32) for name in INPUTS}
    before = graph_of(nodes, outputs, *weights).SerializeToString()
    after = canonical(onnx.load_from_string(before), INPUTS).SerializeToString()
    plain = onnxruntime.SessionOptions()  # ONNX Runtime's own merging of equal nodes fails on "other outputs left out"
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    expected, found = (onnxruntime.InferenceSession(each, plain).run(outputs, feed) for each in (before, after))
    assert all(np.array_equal(one, other) for one, other in zip(expected, found, strict=True))


def test_a_graph_within_a_graph_is_left_as_it_is() -> None:
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["x"], value_floats=[1.0])],
        "inner",
        [],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
    )
    branch = helper.make_node("If", ["flag"], ["user"], "named", then_branch=inner, else_branch=inner)
    flag, user = (
        helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        helper.make_tensor_value_info("user", TensorProto.FLOAT, [1]),
    )
    model = helper.make_model(helper.make_graph([branch], "g", [flag], [user]))
    before = model.SerializeToString(deterministic=True)
    assert canonical(model, INPUTS).SerializeToString(deterministic=True) == before
