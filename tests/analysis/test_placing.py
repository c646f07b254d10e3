import itertools

from elenas_jax.analysis.marks import Edge, Node
from elenas_jax.analysis.placing import ROW_GAP, ROW_WIDTH, choose_hanging, place_block


def chain(num, kind="intermediate"):
    """A chain of `num` wide boxes from an input to an output."""
    nodes = [
        Node("input" if i == 0 else kind, "operation" * 2, "", "", "#ffffff", i == num - 1)
        for i in range(num)
    ]
    return nodes, [Edge(i, i + 1, "", "", "#000000", False) for i in range(num - 1)]


def test_a_long_chain_stands_in_rows_one_below_the_other():
    nodes, edges = chain(40)
    placed = place_block(nodes, edges, [])
    assert placed.width <= ROW_WIDTH + 100
    tops = sorted({box.y for box in placed.boxes})
    assert len(tops) == len(placed.turns) + 1 > 2
    assert all(lower - upper >= ROW_GAP for upper, lower in itertools.pairwise(tops))
    # Reading order: along a row, then on to the next one.
    assert [(box.y, box.x) for box in placed.boxes] == sorted((box.y, box.x) for box in placed.boxes)
    assert sorted([*placed.routes, *(turn.edge for turn in placed.turns)]) == list(range(len(edges)))


def test_a_turn_runs_between_its_rows_and_ends_at_its_boxes():
    nodes, edges = chain(40)
    placed = place_block(nodes, edges, [])
    for turn in placed.turns:
        source, target = (placed.boxes[place] for place in (edges[turn.edge].source, edges[turn.edge].target))
        right, between, left = turn.back
        assert source.y + source.height < between < target.y
        assert turn.end[0] == (source.x + source.width, source.y + source.height / 2)
        assert turn.start[-1] == (target.x, target.y + target.height / 2)
        assert turn.end[-1][0] <= right <= placed.width and 0 <= left <= turn.start[0][0]


def test_a_short_chain_and_one_with_a_way_back_have_one_row():
    nodes, edges = chain(6)
    assert not place_block(nodes, edges, []).turns
    nodes, edges = chain(40)
    back = Edge(38, 1, "", "", "#000000", True)
    placed = place_block(nodes, [*edges, back], [])
    assert len(placed.turns) <= 2 and placed.width > ROW_WIDTH


def test_without_one_input_and_one_output_there_is_one_row():
    nodes, edges = chain(40, kind="input")
    assert not place_block(nodes, edges, []).turns


def test_parameters_hang_on_their_readers_in_each_row():
    nodes, edges = chain(40)
    for reader in (1, 38):
        edges.append(Edge(len(nodes), reader, "matmul", "@", "#000000", False))
        nodes.append(Node("initial", "W", "", "", "#ffffff", False))
    hanging = choose_hanging(nodes, edges)
    assert [(item.node, item.reader) for item in hanging] == [(40, 1), (41, 38)]
    placed = place_block(nodes, edges, hanging)
    for item in hanging:
        box, reader = placed.boxes[item.node], placed.boxes[item.reader]
        assert box.y > reader.y and reader.x <= box.x + box.width / 2 <= reader.x + reader.width
    assert not {item.edge for item in hanging} & {*placed.routes}
