from bench.measure.case import Case
from bench.measure.planning import halved, largest_block


def test_the_largest_block_of_a_model_is_one_of_a_sequence_or_a_part_beside_it() -> None:
    assert largest_block(Case("load_assign", "small", "sim", "float32")) == ("tok_emb", 154_389_504)
    assert largest_block(Case("load_assign", "xl", "sim", "float32"))[0] == "tok_emb"
    assert largest_block(Case("load_assign", "gpt3", "sim", "float32"))[0].startswith("trf_blocks.")


def test_a_model_is_halved_once() -> None:
    case = Case("load_assign", "small", "sim", "float32")
    half = halved(case)
    assert half
    # The masks, which are float32 whatever the weights are, too.
    assert half.specification.footprint.state_bytes == case.specification.footprint.state_bytes // 2
    assert halved(half) is None
