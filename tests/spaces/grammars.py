"""Published grammars, and random ones for Hypothesis."""

from hypothesis import strategies as st

from elenas_jax.spaces.grammar import Grammar, Production, make_grammar, parse_grammar

# Spaces of Schrodi et al. (2023): the cell of NAS-Bench-201, the hierarchical space and its macro
# skeletons, activation functions, a DARTS cell without its constraint; then an example of NePS.
CELL = """
CELL -> Cell OPS OPS OPS OPS OPS OPS
OPS -> id | zero | conv3x3 | conv1x1 | avg_pool
"""
MACRO = """
D2   -> Linear3 D1 D1 D0 | Linear3 D0 D1 D1 | Linear4 D1 D1 D0 D0
D1   -> Linear3 C C DOWN | Linear4 C C C DOWN | Residual3 C C DOWN DOWN
D0   -> Linear3 C C CELL | Linear4 C C C CELL | Residual3 C C CELL CELL
DOWN -> Linear2 CELL resBlock | Linear3 CELL CELL resBlock | Residual2 CELL resBlock resBlock
C    -> Linear2 CELL CELL | Linear3 CELL CELL CELL | Residual2 CELL CELL CELL
"""
SKELETONS = MACRO + "CELL -> SharedCell\n"
HIERARCHICAL = f"""{MACRO}
CELL -> Cell OPS OPS OPS OPS OPS OPS
OPS  -> id | zero | Linear1 CONVBLOCK | Linear1 CONVBLOCK | avg_pool   # twice, as published
CONVBLOCK -> Linear3 ACT CONV NORM
ACT  -> relu | hardswish | mish
CONV -> conv3x3o | conv1x1o | dconv3x3o
NORM -> batch | instance | layer
"""
ACTIVATION = """
L2 -> BinaryTopo BinOp L1 L1 id id | UnaryTopo L1
L1 -> BinaryTopo BinOp UnOp UnOp id id | UnaryTopo UnOp
BinOp -> add | multi | sub | div | bmax | bmin | bsigmoid | bgaussian_sq | bgaussian_abs | wavg
UnOp -> id | neg | abs | square | cubic | square_root | mconst | aconst | log | exp | sin | cos | sinh
      | cosh | tanh | asinh | atanh | sinc | umax | umin | sigmoid | logexp | gaussian | erf | const
"""
DARTS = """
CELL -> DARTS OP IN1 OP IN1 OP IN2 OP IN2 OP IN3 OP IN3 OP IN4 OP IN4
OP -> sep_conv_3x3 | sep_conv_5x5 | dil_conv_3x3 | dil_conv_5x5 | max_pool_3x3 | avg_pool_3x3 | skip_connect
IN1 -> 0|1
IN2 -> 0|1|2
IN3 -> 0|1|2|3
IN4 -> 0|1|2|3|4
"""
NEPS = """
S -> diamond D2 D2 D1 D1 | diamond D1 D2 D2 D1 | diamond D1 D1 D2 D2 | linear D2 D1 | linear D1 D2
   | diamond_mid D1 D2 D1 D2 D1 | diamond_mid D2 D2 Cell D1 D1
D2 -> diamond D1 D1 D1 D1 | linear D1 D1 | diamond_mid D1 D1 Cell D1 D1
D1 -> diamond DOWN DOWN Cell Cell | diamond Cell Cell DOWN DOWN | diamond DOWN Cell Cell DOWN
    | linear DOWN Cell | linear Cell DOWN
    | diamond_mid DOWN DOWN Cell Cell Cell | diamond_mid Cell DOWN DOWN DOWN Cell
DOWN -> linear Cell downsample
Cell -> residual OPS OPS OPS | diamond OPS OPS OPS OPS | linear OPS OPS | diamond_mid OPS OPS OPS OPS OPS
OPS -> conv3x3 | conv1x1 | avg_pool | id
"""
TOY = """
S -> Linear2 A A | Residual2 A A A
A -> Linear2 O O | Linear3 O O O
O -> x | y | id | zero
"""
# Grows without end on average, though each derivation may end.
SUPERCRITICAL = parse_grammar("S -> pair S S [8] | wrap A [1] | x [1]\nA -> deep S S S [9] | y [1]\n")


@st.composite
def grammars(draw: st.DrawFn) -> Grammar:
    """Draws small grammars from whose symbols something that can be drawn ends; else they are anything."""
    names = draw(st.lists(st.sampled_from("ABCDE"), min_size=1, max_size=4, unique=True))
    weights = st.sampled_from((0.5, 1.0, 3.0))
    productions = []
    for place, head in enumerate(names):
        # The first production leads to symbols of later rows alone, so that it ends.
        later = st.sampled_from(["x", "y", *names[place + 1 :]])
        symbols = draw(st.lists(later, min_size=1, max_size=3))
        productions.append(Production(head, tuple(symbols), draw(weights)))
        any_symbols = st.lists(st.sampled_from(["x", "y", "z(1,2)", *names]), min_size=1, max_size=3)
        for symbols in draw(st.lists(any_symbols, max_size=3)):
            productions.append(Production(head, tuple(symbols), draw(weights | st.just(0.0))))
    return make_grammar(draw(st.permutations(productions)), names[0])
