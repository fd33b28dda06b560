"""Terms of a rank, held against what PyTorch makes of a skeleton."""

import inspect
from collections.abc import Iterator

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from bench.meters.local_tensors import local_tensors
from bench.selftest.decoder import BLOCKS, CONTEXT, VOCABULARY, WIDTH, Decoder
from bench.sharded.recipes import SHARDED
from bench.sharded.share import Share, shares
from model.casting import cast
from model.gpt2 import CONFIGS, GPT2, Config
from model.parallel.division import PARALLELISMS, Division
from model.user.reference import Reference

RANKS = (1, 2, 3, 8, 64)


@pytest.fixture(autouse=True)
def no_group_is_left() -> Iterator[None]:
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()


def skeleton(size: str) -> GPT2:
    with torch.device("meta"):
        return GPT2(CONFIGS[size])


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("size", ["rehearsal", "tiny"])
@pytest.mark.parametrize("way", PARALLELISMS)
def test_a_rank_holds_what_pytorch_gives_it(way: str, size: str, ranks: int) -> None:
    expected = shares(skeleton(size), Division(way), ranks)
    for rank in {0, ranks // 2, ranks - 1}:
        distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=ranks)
        model = Division(way).apply(skeleton(size), init_device_mesh("cpu", (ranks,)))
        tensors = local_tensors(model)
        assert expected[rank].held_bytes == sum(tensor.nbytes for tensor in tensors)
        # On meta FSDP2 has the shards in the size that all are brought to.
        made = [tensor.untyped_storage().nbytes() for tensor in tensors]
        larger = sum(size for size, tensor in zip(made, tensors, strict=True) if size != tensor.nbytes)
        assert expected[rank].pads == (larger if Division(way).pads else 0)
        distributed.destroy_process_group()


def decoder(dtype: torch.dtype | None = None) -> Decoder:
    with torch.device("meta"):
        return Decoder().to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ranks", [2, 3, 8])
@pytest.mark.parametrize("way", PARALLELISMS)
def test_a_rank_holds_what_pytorch_gives_it_of_a_model_of_the_users(way: str, ranks: int, dtype: torch.dtype) -> None:
    """With a tied head, and a buffer that no checkpoint has, which a cast leaves as it is."""
    division = Division(way, tp_plan=Reference("bench.selftest.decoder:PLAN") if way == "tensor" else None)
    expected = shares(decoder(), division, ranks, {}, dtype)
    for rank in {0, ranks - 1}:
        distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=ranks)
        model = cast(decoder(), dtype)
        division.apply(model, init_device_mesh("cpu", (ranks,)))
        assert expected[rank].held_bytes == sum(tensor.nbytes for tensor in local_tensors(model))
        distributed.destroy_process_group()
    positions = CONTEXT * WIDTH * 4
    assert expected[0].beside_bytes == positions
    state = decoder().state_dict()
    tensors = {id(tensor): tensor.numel() for tensor in decoder().parameters()}
    assert expected[0].state_bytes == sum(tensors.values()) * dtype.itemsize
    assert len(state) == len(tensors) + 1


def test_the_terms_of_a_cast_by_hand() -> None:
    """Two ranks, from what is saved in float32, and an embedding in bfloat16, to bfloat16."""
    saved = {"embedding.weight": torch.bfloat16}
    one, two = shares(decoder(), Division("fsdp"), 2, saved, torch.bfloat16)
    embedding, positions = VOCABULARY * WIDTH, CONTEXT * WIDTH * 4
    block = 4 * (WIDTH * WIDTH + WIDTH) + 2 * WIDTH + 2 * 4 * WIDTH * WIDTH + 5 * WIDTH
    # A scalar is whole in each rank.
    assert one.checkpoint_bytes == 2 * embedding + 4 * BLOCKS * block + 4
    assert one.state_bytes == 2 * (embedding + BLOCKS * block + 1)
    assert one.converted_to_bytes == 2 * (BLOCKS * block + 1)
    # Half of the rows of the largest layer of a block; of 37 rows of the embedding the first rank has one more.
    assert one.largest_made_bytes == 2 * 2 * WIDTH * WIDTH
    assert one.held_bytes == 2 * (19 * WIDTH + BLOCKS * block // 2 + 1) + positions
    assert two.held_bytes == one.held_bytes - 2 * WIDTH
    assert one.held_saved_bytes == 2 * 19 * WIDTH + 4 * BLOCKS * block // 2 + 4
    # A bias comes before its weight.
    assert one.largest_pair_bytes == 4 * (4 * WIDTH + 4 * WIDTH * WIDTH)
    assert one.bound_bytes("S/N + D") == one.held_bytes + min(4 * 2 * WIDTH * WIDTH, one.bound_bytes("R") // 16)
    assert one.peak_bound("host_private_peak_bytes", "V") == one.largest_made_bytes + positions
    assert one.peak_bound("host_private_peak_bytes", "S/N") == one.held_bytes
    assert one.peak_bound("device_requested_peak_bytes", "S/N") == one.held_bytes
    [on_host, _] = shares(decoder(), Division("fsdp"), 2, saved, torch.bfloat16, on_host=True)
    assert on_host.conversion_slot_bytes == one.bound_bytes("R")
    [as_saved, _] = shares(decoder(), Division("fsdp"), 2)
    assert as_saved.conversion_slot_bytes == as_saved.converted_to_bytes == as_saved.largest_made_bytes == 0


def test_the_terms_of_a_model_by_hand() -> None:
    """Two ranks, one block of width 4: 12 x 16 weights and 13 x 4 others, a mask of 9; 5 + 3 + 5 rows and a norm."""
    with torch.device("meta"):
        model = GPT2(Config(emb_dim=4, layers=1, heads=1, vocabulary=5, context=3))
    one, two = shares(model, Division("fsdp"), 2)
    block, outside, mask = 4 * (12 * 16 + 13 * 4), 4 * (13 * 4 + 2 * 4), 4 * 9
    assert (one.state_bytes, one.largest_tensor_bytes) == (block + outside + mask, 4 * 64)
    # The largest of a block after its mask, or the embedding before: what is divided is sent whole.
    assert one.sent_bytes == mask + 4 * 64
    # Of 5 rows of the vocabulary, and 3 positions, the first rank has one more than the second.
    assert one.held_bytes == block // 2 + mask + 4 * (3 + 2 + 3) * 4 + 4 * 4
    assert two.held_bytes == one.held_bytes - 3 * 16
    assert (one.pads, two.pads) == (0, 4 * (3 + 2 + 3) * 4)
    # The block is whole, with its mask, and divided; nothing else is there yet.
    assert one.bound_bytes("S/N + U") == block + mask + block // 2


def test_a_reader_of_files_in_turn_maps_one_at_a_time() -> None:
    """Two ranks, and two files: one has the tied head, which is the embedding."""
    blocks = [name for name in decoder().state_dict() if name.startswith("blocks")]
    one, two = shares(decoder(), Division("fsdp"), 2, files=[["head.weight"], blocks])
    embedding, blocks_bytes = 4 * VOCABULARY * WIDTH, one.checkpoint_bytes - 4 * (VOCABULARY * WIDTH + 1)
    assert one.largest_file_bytes == max(embedding, blocks_bytes) == blocks_bytes
    assert one.file_touched_bytes == blocks_bytes // 2
    assert two.touched_bytes == two.file_touched_bytes + 4 * (18 * WIDTH + 1)
    [whole, _] = shares(decoder(), Division("fsdp"), 2)
    assert (whole.file_touched_bytes, whole.largest_file_bytes) == (whole.touched_bytes, whole.checkpoint_bytes)


def small(layers: int) -> GPT2:
    with torch.device("meta"):
        return GPT2(Config(emb_dim=4, layers=layers, heads=1, vocabulary=5, context=3))


def test_a_block_is_moved_while_those_before_it_are_there() -> None:
    block, mask = 4 * (12 * 16 + 13 * 4), 4 * 9
    one, _ = shares(small(layers=3), Division("fsdp"), 2)
    assert one.bound_bytes("S/N + U") == 2 * (block // 2 + mask) + (block + mask + block // 2)


def test_what_is_divided_by_columns_lies_in_all_of_its_pages() -> None:
    """Two ranks: half of 4 x 4 and 4 x 16 weights of rows in parts."""
    one, two = shares(small(layers=1), Division("tensor"), 2)
    assert one.touched_bytes == one.held_bytes + 4 * (8 + 32)
    assert two.touched_bytes == two.held_bytes + 4 * (8 + 32)
    # Positions, three norms, and a mask.
    # The largest layer is sent after the positions and the mask.
    assert one.sent_bytes == 4 * (3 * 4 + 9 + 64)
    # A tensor counts whole, however little of it a rank has, and its bias is held when it is read.
    assert one.largest_pair_bytes == 4 * (16 + 64)
    # The strips of the weights that are divided by rows are put together on the host.
    assert one.largest_made_bytes == 4 * 64 // 2
    assert shares(small(layers=1), Division("fsdp"), 2)[0].largest_made_bytes == 0


def test_a_rank_may_have_nothing_but_what_all_have() -> None:
    """No tensor has 17 rows."""
    *_, last = shares(small(layers=1), Division("fsdp"), 17)
    mask = 4 * 9
    assert (last.held_bytes, last.touched_bytes, last.largest_pair_bytes) == (mask, mask, mask)
    *_, last = shares(small(layers=1), Division("tensor"), 17)
    assert last.touched_bytes == last.held_bytes


ONE = Share(
    state_bytes=1000,
    largest_tensor_bytes=100,
    held_bytes=500,
    sent_bytes=107,
    unit_bytes=30,
    touched_bytes=600,
    largest_pair_bytes=90,
    pads=11,
    leads=True,
    file_touched_bytes=300,
    largest_file_bytes=400,
    checkpoint_bytes=1000,
    held_saved_bytes=500,
)


@pytest.mark.parametrize(
    ("expression", "least", "most"),
    [
        ("0", 0, 0),
        ("2S", 2000, 2000),
        ("S/N", 500, 511),
        ("S/N + B", 607, 618),
        # What is divided where it is, is made in the size that all have.
        ("S/N + U", 530, 530),
        ("M", 90, 90),
        ("R", 2**17, 2**17),
        # Pages around others are mapped with them.
        ("T", 600, 1000),
        ("F", 300, 400),
        ("S | 0", 1000, 1000),
    ],
)
def test_what_an_expression_means(expression: str, least: int, most: int) -> None:
    assert (ONE.bound_bytes(expression), ONE.most_bytes(expression)) == (least, most)


def test_other_ranks_have_what_is_behind_the_bar() -> None:
    assert Share(**vars(ONE) | {"leads": False}).bound_bytes("S | 3L") == 300


@pytest.mark.parametrize("text", ["", "N", "S/M", "S//N", "S - L", "L/N", "Z"])
def test_what_is_no_bound_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"^'.*' is not a bound; give a sum of multiples of S, L and R, "):
        ONE.bound_bytes(text)


@pytest.mark.parametrize("name", SHARDED)
def test_every_row_of_the_table_can_be_read_and_called(name: str) -> None:
    strategy = SHARDED[name]
    bounds = strategy.bounds
    for expression in (bounds.device, bounds.host, bounds.cpu, bounds.file, bounds.pinned):
        assert ONE.bound_bytes(expression) >= 0
    assert list(inspect.signature(strategy.function).parameters)[:4] == ["build", "path", "device", "parallelize"]
    assert strategy.name == name
