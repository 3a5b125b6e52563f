"""One form for each ONNX graph: what computes the same by the same steps has the same bytes.

The exporter names values and orders nodes by how it came upon them, and reads the size of a batch off whichever input
it met first, which may be another one in another process. A trainer that goes on after a crash would then write other
bytes than one that was never disturbed.
"""

from collections.abc import Collection, Iterator

import onnx
from onnx import AttributeProto, ModelProto, NodeProto

GRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
RANDOM = ("Random", "Bernoulli", "Multinomial", "Dropout")  # two equal nodes of these give two values


def canonical(model: ModelProto, inputs: Collection[str]) -> ModelProto:
    """The model with its nodes in an order that follows from its output, named by that order, and none twice.

    Args:
        model: of one graph; changed. One that holds graphs or functions is left as it is.
        inputs: names of those that have the batch as their first axis, the first of them the one that tells its size.

    """
    graph = model.graph
    if model.functions or any(each.type in GRAPHS for node in graph.node for each in node.attribute):
        return model
    first = next(iter(inputs))
    outputs = {value.name for value in graph.output}
    makers = {name: node for node in graph.node for name in node.output if name}
    names: dict[str, str] = {}  # of a value -> in the new graph; graph inputs and weights keep theirs
    known: dict[tuple[bytes, tuple[bool, ...]], NodeProto] = {}
    nodes: list[NodeProto] = []
    for node in _from_the_output(makers, [value.name for value in graph.output]):
        new = NodeProto(op_type=node.op_type, domain=node.domain, overload=node.overload)
        new.input.extend(first if _batch_of(node, inputs) else names.get(name, name) for name in node.input)
        new.attribute.extend(sorted(node.attribute, key=lambda each: each.name))
        # Which outputs there are can change what a node does: Split divides by their number.
        key = new.SerializeToString(deterministic=True), tuple(map(bool, node.output))
        # What an output of the graph comes from stays a node of its own, as a value can have but one name.
        if node.op_type.startswith(RANDOM) or key not in known or not outputs.isdisjoint(node.output):
            new.name = f"{node.op_type}_{len(nodes)}"
            new.output.extend(f"{new.name}.{place}" if name else "" for place, name in enumerate(node.output))
            known[key] = new
            nodes.append(new)
        names |= {old: now for old, now in zip(node.output, known[key].output, strict=True) if old}
    back = {names[name]: name for name in outputs if name in names}
    for node in nodes:
        node.input[:] = [back.get(name, name) for name in node.input]
        node.output[:] = [back.get(name, name) for name in node.output]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return model


def _from_the_output(makers: dict[str, NodeProto], outputs: list[str]) -> Iterator[NodeProto]:
    """Each node that an output needs, after those that it needs itself."""
    done: set[int] = set()
    waiting = [(makers[name], False) for name in reversed(outputs) if name in makers]
    while waiting:
        node, ready = waiting.pop()
        if id(node) in done:
            continue
        if ready:
            done.add(id(node))
            yield node
            continue
        waiting.append((node, True))
        waiting.extend((makers[name], False) for name in reversed(node.input) if name in makers)


def _batch_of(node: NodeProto, inputs: Collection[str]) -> bool:
    """Whether a node tells the size of the batch alone."""
    place = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    return node.op_type == "Shape" and node.input[0] in inputs and (place.get("start", 0), place.get("end")) == (0, 1)
