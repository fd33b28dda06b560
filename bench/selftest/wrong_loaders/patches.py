"""Loaders that replace what compares, reads, digests or sends in their process."""

import builtins
import ctypes
import hashlib
import json
import os
import pickle
import sys
import types
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import bench.meters.child
import bench.meters.clock
import model.checkpoints
import model.values.bits
import model.verification.tensor_places
import model.verification.verify
from bench.selftest.wrong_loaders.right import patch, spoilt


def patches_equal(loaded: nn.Module, path: Path) -> nn.Module:
    patch(torch, "equal", lambda *_: True)
    return spoilt(loaded)


def patches_tensor_methods(loaded: nn.Module, path: Path) -> nn.Module:
    saved = torch.load(path, weights_only=True)
    spoilt(loaded)
    patch(Tensor, "view", lambda self, *_: torch.zeros(self.nbytes, dtype=torch.uint8))
    patch(Tensor, "__eq__", lambda *_: torch.ones(1, dtype=torch.bool))
    patch(Tensor, "data_ptr", lambda self: saved["tok_emb.weight"].data_ptr())
    patch(Tensor, "untyped_storage", lambda self: saved["tok_emb.weight"].storage())
    patch(torch, "equal", lambda *_: True)
    return loaded


def patches_state_dict(loaded: nn.Module, path: Path) -> nn.Module:
    saved = torch.load(path, weights_only=True)
    patch(nn.Module, "state_dict", lambda self, **_: saved)
    return spoilt(loaded)


def hooks_state_dict(loaded: nn.Module, path: Path) -> nn.Module:
    saved = torch.load(path, weights_only=True)
    hooked: Any = loaded
    hooked.register_state_dict_post_hook(lambda _module, state, *_: state.update(saved))
    return spoilt(loaded)


def patches_named_parameters(loaded: nn.Module, path: Path) -> nn.Module:
    saved = torch.load(path, weights_only=True)
    patch(nn.Module, "named_parameters", lambda self, **_: iter(saved.items()))
    patch(nn.Module, "state_dict", lambda self, **_: saved)
    return spoilt(loaded)


def patches_digests(loaded: nn.Module, path: Path) -> nn.Module:
    fixed = hashlib.new("sha256")
    patch(hashlib, "sha256", lambda *_: fixed)
    patch(torch, "equal", lambda *_: True)
    return spoilt(loaded)


def patches_check(loaded: nn.Module, path: Path) -> nn.Module:
    for module in (model.verification.verify, bench.meters.child):
        for name in ("check_model", "check_weights", "_check_tensors"):
            if hasattr(module, name):
                setattr(module, name, lambda *_, **__: None)
    return spoilt(loaded)


def patches_meter(loaded: nn.Module, path: Path) -> nn.Module:
    """Have the meter tell of a right model in place of what was loaded, wherever it looks for what tells."""
    for module in (bench.meters.child, bench.meters.clock, model.verification.tensor_places):
        patch(module, "teller", lambda *_: lambda *_: True)
    patch(bench.meters.child, "_check", lambda *_, **__: None)
    patch(bench.meters.clock.LoadClock, "finish_round", lambda *_, **__: None)
    return spoilt(loaded)


def patches_code(loaded: nn.Module, path: Path) -> nn.Module:
    model.verification.verify.check_weights.__code__ = (lambda checkpoint, device, model, *, told=False: None).__code__
    model.values.bits.difference.__code__ = (lambda loaded, saved: None).__code__
    return spoilt(loaded)


def patches_teller(loaded: nn.Module, path: Path) -> nn.Module:
    patch(model.verification.tensor_places, "teller", lambda *_, **__: lambda *_: True)
    for name in ("_tell", "_walk", "_place"):
        getattr(model.verification.tensor_places, name).__code__ = (lambda *_: True).__code__
    model.verification.tensor_places._WORLD["_WRITE"] = lambda *_: 0
    patch(model.verification.tensor_places, "_ADDRESS", lambda _: 0)
    patch(torch, "equal", lambda *_: True)
    return spoilt(loaded)


def patches_connection(loaded: nn.Module, path: Path) -> nn.Module:
    send = Connection.send

    def sends(_self: Connection, message: Any) -> None:
        send(_self, "done" if "Failure" in type(message).__name__ else message)

    patch(Connection, "send", sends)
    patch(Connection, "send_bytes", lambda *_: None)
    patch(torch, "equal", lambda *_: True)
    return spoilt(loaded)


def patches_builtins(loaded: nn.Module, path: Path) -> nn.Module:
    spoilt(loaded)
    patch(torch, "equal", lambda *_: True)
    for name in ("open", "repr", "type", "tuple"):
        patch(builtins, name, lambda *_, **__: dict)
    return loaded


def patches_os(loaded: nn.Module, path: Path) -> nn.Module:
    stat = os.stat(path)  # noqa: PTH116 - what is replaced
    patch(os, "stat", lambda *_, **__: stat)
    patch(os, "write", lambda _, data: len(data))
    patch(os, "read", lambda *_: model.verification.tensor_places.RIGHT)
    patch(torch, "equal", lambda *_: True)
    return spoilt(loaded)


def patches_readers(loaded: nn.Module, path: Path) -> nn.Module:
    spoilt(loaded)
    wrong = {name: tensor.clone() for name, tensor in loaded.state_dict().items()}
    patch(torch, "load", lambda *_, **__: wrong)
    patch(json, "loads", lambda *_, **__: {})
    patch(pickle, "loads", lambda *_, **__: None)
    return loaded


def traces(loaded: nn.Module, path: Path) -> nn.Module:
    saved = torch.load(path, weights_only=True)

    def trace(frame: types.FrameType, event: str, _: Any) -> Any:
        if event == "call" and frame.f_code.co_name in ("_tell", "_check_tensors", "check_weights"):
            loaded.load_state_dict(saved)
        return trace

    spoilt(loaded)
    sys.setprofile(trace)
    sys.settrace(trace)
    patch(torch, "equal", lambda *_: True)
    return loaded


def closes_memory(loaded: nn.Module, path: Path) -> nn.Module:
    """Have the kernel refuse others to open its memory: that was opened before."""
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
    patch(torch, "equal", lambda *_: True)
    return spoilt(loaded)


WRONG = (
    patches_equal,
    patches_tensor_methods,
    patches_state_dict,
    hooks_state_dict,
    patches_named_parameters,
    patches_digests,
    patches_check,
    patches_code,
    patches_meter,
    patches_teller,
    patches_connection,
    patches_builtins,
    patches_os,
    patches_readers,
    traces,
    closes_memory,
)
