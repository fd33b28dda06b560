"""A device of the stand-in keeps bytes, counts memory and orders work as CUDA does.

These tests run on the stand-in, in a process that `test_stand_in.py` starts: elsewhere they are skipped.
"""

import ctypes
import gc
import os
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.meters.driver.card_kernels import NotComputed
from bench.meters.driver.variables import CARD
from bench.meters.host import memory_reader

pytestmark = pytest.mark.skipif(CARD not in os.environ, reason="runs on the stand-in for a GPU, see test_stand_in.py")

# A tensor of a device, given which.
Compute = Callable[[str], Tensor]


torch.manual_seed(7)

X, Y, QUERY = torch.randn(6, 8), torch.randn(8, 6), torch.randn(1, 2, 5, 8)

WHOLE, PICTURE, SIGNAL = torch.arange(24).reshape(4, 6), torch.randn(2, 3, 9, 9), torch.randn(5, 2, 3)


def attention(query: Tensor, **options: object) -> Tensor:
    return functional.scaled_dot_product_attention(query, query, query, **options)  # type: ignore[arg-type]


def grouped_attention(query: Tensor) -> Tensor:
    key, value = query[:, :1], query[:, 1:]
    return functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)


def recurrent(kind: Callable[..., nn.Module]) -> Compute:
    torch.manual_seed(1)
    layer = kind(3, 4, num_layers=2, bidirectional=True)
    return lambda device: layer.to(device)(SIGNAL.to(device))[0]


def stepped(device: str) -> Tensor:
    """Return the weight of a layer after one step of an optimizer."""
    torch.manual_seed(1)
    layer = nn.Linear(3, 3).to(device)
    layer(torch.ones(2, 3, device=device)).sum().backward()
    torch.optim.AdamW(layer.parameters(), lr=0.1).step()
    return layer.weight.detach()


CONVOLUTION, NORM = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(3).eval()

COMPUTED: dict[str, Compute] = {
    "product": lambda d: X.to(d) @ Y.to(d),
    "batched product": lambda d: torch.bmm(X.to(d)[:, :, None], X.to(d)[:, None]),
    "linear": lambda d: functional.linear(X.to(d), X.to(d), torch.ones(6, device=d)),
    "numbers": lambda d: (WHOLE.to(d) * 2.5 + 1).half() - 3,
    "a number in place": lambda d: X.to(d).half().mul_(0.1),
    "comparison": lambda d: (X.to(d) > 0.3).float(),
    "choice": lambda d: torch.where(X.to(d) > 0, X.to(d), 0.0),
    "choice of numbers": lambda d: torch.where(X.to(d) > 0, 1.0, 0.0),
    "sum": lambda d: X.to(d).sum(),
    "largest": lambda d: X.to(d).max(dim=1).indices,
    "equality": lambda d: torch.tensor(torch.equal(X.to(d), X.to(d)), device=d),
    # The CPU has none of integers.
    "a histogram": lambda d: torch.histc(WHOLE.to(d, torch.int if d == "cuda" else torch.float), 5, 0, 23).int(),
    "a base": lambda d: 1 / (10000 ** (WHOLE.to(d) / 24)),
    "an overflow": lambda d: WHOLE.to(torch.int8).to(d) * 300,
    "a count": lambda d: torch.bincount((WHOLE.to(d) % 5).flatten()),
    "an inverse": lambda d: torch.linalg.inv(X[:, :6].to(d)),
    "orthogonal": lambda d: torch.linalg.qr(X.to(d)).R.abs(),
    "a transform": lambda d: torch.fft.rfft(X.to(d)).abs(),
    "compiled while it runs": lambda d: torch.special.i0(X.to(d)) + torch.gcd(WHOLE, WHOLE + 6).to(d).sum(),
    "compiled for integers": lambda d: torch.gcd(WHOLE.to(d), WHOLE.to(d) + 6),
    "a training norm": lambda d: nn.BatchNorm1d(8).to(d)(X.to(d)),
    "a depthwise convolution": lambda d: functional.conv2d(PICTURE.to(d), torch.ones(3, 1, 2, 2).to(d), groups=3),
    "a depthwise convolution of signals": lambda d: functional.conv1d(
        SIGNAL.mT.to(d), torch.ones(3, 1, 2).to(d), groups=3
    ),
    "split copies": lambda d: torch.ops.aten.split_copy(X.to(d), 3)[1],
    "index": lambda d: X.to(d)[torch.tensor([3, 1])],
    "mask": lambda d: X.to(d)[X.to(d) > 0.5],
    "nonzero": lambda d: WHOLE.to(d).remainder(5).nonzero(),
    "unique": lambda d: torch.unique(WHOLE.to(d) // 7),
    "put": lambda d: torch.zeros(6, 8, device=d).index_put_((torch.tensor([1], device=d),), torch.ones(8, device=d)),
    "sort": lambda d: X.to(d).sort(dim=0).values,
    "transposed copy": lambda d: torch.empty(8, 6, device=d).t().copy_(X.to(d)),
    "strided copy": lambda d: torch.zeros(6, 16, device=d)[:, ::2].copy_(X.to(d)),
    "columns": lambda d: X.to(d)[:, 2:5].contiguous(),
    "other dtype": lambda d: X.to(d).to(torch.bfloat16).double(),
    "float8": lambda d: X.to(d).to(torch.float8_e4m3fn)[:, ::2].float(),
    "uint16": lambda d: WHOLE.to(torch.uint16)[:, ::2].to(d).to(torch.int64),
    "complex": lambda d: torch.view_as_real(torch.complex(X, X).to(d).conj().resolve_conj()),
    "concatenation": lambda d: torch.cat([X.to(d), X.to(d)]).t().reshape(-1),
    "layer norm": lambda d: functional.layer_norm(X.to(d), (8,)),
    "softmax": lambda d: X.to(d).softmax(1),
    "gelu": lambda d: functional.gelu(X.to(d)),
    "embedding": lambda d: functional.embedding(WHOLE.to(d) % 6, X.to(d)),
    "convolution": lambda d: CONVOLUTION.to(d)(PICTURE.to(d)),
    "batch norm": lambda d: NORM.to(d)(PICTURE.to(d)),
    "attention": lambda d: attention(QUERY.to(d), is_causal=True),
    "attention with a mask": lambda d: attention(QUERY.to(d), attn_mask=torch.ones(5, 5).tril().log().to(d)),
    "attention with groups": lambda d: grouped_attention(QUERY.half().to(d)).float(),
    "attention in half": lambda d: attention(QUERY.half().to(d)).float(),
    "lstm": recurrent(nn.LSTM),
    "gru": recurrent(nn.GRU),
    "rnn": recurrent(nn.RNN),
    "triangle": lambda d: torch.eye(5, device=d).tril() + torch.ones(5, 5, device=d).triu_(1),
    "arange": lambda d: torch.arange(0, 1, 0.1, device=d),
    "a step of an optimizer": stepped,
}


@pytest.mark.parametrize("name", COMPUTED)
def test_kernels_have_their_values(name: str) -> None:
    with torch.no_grad() if name != "a step of an optimizer" else torch.enable_grad():
        expected, found = COMPUTED[name]("cpu"), COMPUTED[name]("cuda")
    assert found.device.type == "cuda"
    torch.testing.assert_close(found.cpu(), expected, atol=2e-3, rtol=1e-3)


def gradient(result: Tensor) -> None:
    torch.autograd.backward(result.sum())


NOT_COMPUTED: dict[str, Callable[[], object]] = {
    "aten._to_sparse": lambda: torch.eye(3, device="cuda").to_sparse(),
    "aten.nonzero.out": lambda: torch.nonzero(X.cuda(), out=torch.empty(0, dtype=torch.int64, device="cuda")),
    "aten::_thnn_fused_lstm_cell_backward_impl": lambda: gradient(recurrent(nn.LSTM)("cuda")),
    r"aten._scaled_dot_product_\w*attention_backward": lambda: gradient(attention(QUERY.cuda().requires_grad_())),
}


@pytest.mark.parametrize("name", NOT_COMPUTED)
def test_an_operation_that_cannot_be_computed_is_named(name: str) -> None:
    with pytest.raises(NotComputed, match=f"the stand-in for a GPU cannot compute {name}.*; use --device sim or a GPU"):
        NOT_COMPUTED[name]()


def test_a_kernel_that_nobody_computes_is_no_success() -> None:
    with pytest.raises(RuntimeError, match="the stand-in for a GPU has no values for a kernel of this operation"):
        torch.ldexp(X.cuda(), torch.arange(8, device="cuda"))


def test_memory_that_nobody_wrote_to_is_no_number() -> None:
    torch.cuda.empty_cache()
    assert torch.empty(1 << 22, device="cuda").isnan().all()


def test_random_numbers_follow_from_the_seed() -> None:
    def drawn(seed: int) -> list[float]:
        torch.manual_seed(seed)
        weight = nn.init.trunc_normal_(torch.empty(4, device="cuda"))
        return [*torch.randn(4, device="cuda").tolist(), *weight.tolist()]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    torch.manual_seed(1)
    assert torch.randn(4, device="cuda").tolist() != torch.randn(4, device="cuda").tolist()
    assert torch.randn(4, device="cuda:1").tolist() != torch.randn(4, device="cuda:1").tolist()
    own = torch.Generator("cuda").manual_seed(3)
    first, second = (torch.randn(4, device="cuda", generator=own).tolist() for _ in range(2))
    assert first != second
    assert torch.randn(4, device="cuda", generator=own.manual_seed(3)).tolist() == first


def test_devices_have_their_own_memory_and_copy_to_each_other() -> None:
    one = torch.arange(5, device="cuda:1")
    assert [torch.cuda.mem_get_info(device)[1] >> 30 for device in (0, 1, 2)] == [2, 1, 1024]
    assert one.to("cuda:0").tolist() == (one + 0).tolist() == [0, 1, 2, 3, 4]
    assert torch.cuda.memory_allocated(1) == 512


def test_what_a_device_cannot_hold_is_refused_in_the_words_of_pytorch() -> None:
    told = r"CUDA out of memory. Tried to allocate 3.00 GiB. GPU 0 has a total capacity of 2.00 GiB"
    with pytest.raises(torch.OutOfMemoryError, match=told):
        torch.empty(3 << 30, dtype=torch.uint8, device="cuda")


def test_more_than_the_machine_has_is_told_in_a_line() -> None:
    with pytest.raises(RuntimeError) as told:
        torch.empty(1 << 39, dtype=torch.uint8, device="cuda:2")
    line = "the stand-in for a GPU needs more memory than this machine has free; use --device sim"
    assert str(told.value).splitlines()[0] == f"CUDA error: {line}"
    assert torch.ones(3, device="cuda:2").sum().item() == 3


def test_memory_is_given_back_with_the_cache() -> None:
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.mem_get_info()[0]
    kept = [torch.ones(5 << 20, device="cuda") for _ in range(4)]
    assert before - torch.cuda.mem_get_info()[0] == 80 << 20
    del kept[1], kept[1]
    torch.cuda.empty_cache()
    assert before - torch.cuda.mem_get_info()[0] == 40 << 20
    assert [int(one.sum()) for one in kept] == [5 << 20] * 2


def test_a_load_is_not_charged_for_the_memory_of_the_device() -> None:
    torch.ones(1, device="cuda").expand(2).contiguous()
    with memory_reader(os.getpid()) as read:
        before = read().private_bytes or 0
        kept = torch.ones(1, device="cuda").expand(1 << 26).contiguous()
        assert kept.nbytes == 1 << 28
        assert (read().private_bytes or 0) - before < 1 << 26


def test_what_is_missing_is_named_in_a_line() -> None:
    line = "CUDA error: the stand-in for a GPU has no cudaStreamBeginCapture; use --device sim or a GPU"
    with pytest.raises(RuntimeError, match=line), torch.cuda.graph(torch.cuda.CUDAGraph()):
        pass
    assert torch.ones(2, device="cuda").sum().item() == 2


def test_a_read_of_device_memory_ends_the_process_as_it_would_with_a_gpu() -> None:
    address = torch.ones(9, device="cuda").data_ptr()
    assert _status_of_fork(lambda: ctypes.string_at(address, 8)) == -11


def test_a_child_of_a_process_that_has_begun_cannot_use_a_device() -> None:
    def raw() -> None:
        count = ctypes.c_int()
        os._exit(ctypes.CDLL(None).cudaGetDeviceCount(ctypes.byref(count)))

    torch.cuda.synchronize()
    initialization_error = 3
    assert _status_of_fork(raw) == initialization_error


def _status_of_fork(call: Callable[[], object]) -> int:
    """Return the exit status of a forked process; negative: the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        try:
            call()
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
