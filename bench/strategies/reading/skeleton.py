"""A model whose weights have no memory yet, while all that no checkpoint has has its values."""

import gc
import threading
import weakref
from contextlib import nullcontext, suppress

import torch
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from bench.strategies.reading.assign import assign, empty, others, swap, weights


def skeleton(build):
    """Build a model with its parameters and persistent buffers on meta; all else has the values that it is given.

    Raises `ValueError` for a model that TorchScript has compiled, that saves its state by code of its own, or in which
    other values come from weights.
    """
    failure, lost = None, []
    # The first costs nothing, and will do for models that have nothing but weights. The last is for values that come
    # from persistent buffers, or are filled in one by one.
    for moved in ("everything", "weights", "parameters"):
        try:
            with torch.device("meta") if moved == "everything" else nullcontext(), OnMeta(moved) as mode:
                model = build()
        except Exception as error:  # noqa: BLE001 - whatever the model's code raises
            failure = failure or error
            continue
        require_replaceable(model)
        assign(model, [(name, mode.on_meta(one)) for name, one in weights(model).items() if not one.is_meta])
        lost = [name for name, one in others(model).items() if one.is_meta or one.untyped_storage() in mode.storages]
        if not lost and not mode.is_kept_elsewhere(weights(model)):
            return model
        lost = lost or ["tensors that it holds somewhere"]
    if not lost:
        raise failure
    raise ValueError(f"{lost} are in no checkpoint, and are computed from weights, which are not loaded yet")


class OnMeta(TorchFunctionMode):
    """In which tensors go to meta: everything that is made, or weights as modules register them, or parameters only.

    Nothing fills tensors on meta: they have no values, but to find that out takes longer than a load. Only the thread
    that has entered it builds so.
    """

    FILLS = ("uniform_", "normal_", "fill_", "zero_", "triu_", "tril_")

    def __init__(self, moved):
        super().__init__()
        # What was made on meta; of every storage the one there that stands for it; and the last buffer.
        self.moved, self.made, self.storages, self.last = moved, [], weakref.WeakKeyDictionary(), None
        self.thread = threading.get_ident()

    def __enter__(self):
        self.hooks = [register_module_parameter_registration_hook(self.registering)]
        if self.moved == "weights":
            self.hooks.append(register_module_buffer_registration_hook(self.registering))
        return super().__enter__()

    def __exit__(self, *raised):
        for hook in self.hooks:
            hook.remove()
        self.move_last()
        return super().__exit__(*raised)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        filled = args[0] if args else kwargs.get("tensor")
        fills = func.__name__ in self.FILLS or getattr(func, "__module__", None) == "torch.nn.init"
        if fills and filled.is_meta:
            return filled
        if self.moved == "weights" and func is torch.empty and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        if func is torch.Tensor.to and filled.is_meta:
            device, dtype, *_ = torch._C._nn._parse_to(*args[1:], **kwargs)  # noqa: SLF001 - as `Module.to` has it
            if device is not None and device.type == "cpu":  # For the host it is meant already.
                return filled.to(dtype or filled.dtype)
        made = func(*args, **kwargs)
        if isinstance(made, torch.Tensor) and made.is_meta:
            self.made.append(weakref.ref(made))
        return made

    def registering(self, module, name, tensor):
        """Move what a module registers; a buffer when the next tensor comes: only then is it known to be persistent."""
        if threading.get_ident() == self.thread:
            self.move_last()
            if isinstance(tensor, torch.nn.Parameter):
                self.move(tensor)
            else:
                self.last = module, name, tensor

    def move_last(self):
        (module, name, tensor), self.last = self.last or (None, "", None), None
        if tensor is not None and name not in module._non_persistent_buffers_set:  # noqa: SLF001 - told nowhere else
            self.move(tensor)

    def move(self, weight):
        """Put a weight on meta, as itself to whoever has it; one with views is moved when the model is built."""
        if not weight.is_meta:
            with suppress(RuntimeError):
                swap(weight, self.on_meta(weight))

    def on_meta(self, tensor):
        """Return a tensor on meta: those that share memory share it there too."""
        storage, place = tensor.untyped_storage(), (tensor.storage_offset(), tensor.shape, tensor.stride())
        if storage not in self.storages:
            self.storages[storage] = torch.UntypedStorage(storage.nbytes(), device="meta")
        return torch.empty(0, dtype=tensor.dtype, device="meta").set_(self.storages[storage], *place)

    def is_kept_elsewhere(self, tensors):
        """Return True if a tensor that was made on meta, and is none of these, is alive, or memory of a weight."""
        # A view holds the tensor that it is a view of.
        own = {id(one) for weight in tensors.values() for one in (weight, weight._base)}  # noqa: SLF001

        def kept():
            alive = {id(one) for made in self.made if (one := made()) is not None}
            return bool(alive - own) or len(self.storages) > 0

        if kept():
            gc.collect()  # What nobody reaches is not kept.
        found = kept()
        self.made.clear()  # What has weak references cannot be swapped.
        return found


def require_replaceable(model):
    """Raise `ValueError` if the weights of a model are not those that its modules register."""
    if compiled := compiled_modules(model):
        raise ValueError(f"{compiled[0]} is compiled by torch.jit.script: its tensors cannot be replaced")
    plain = torch.nn.Module._save_to_state_dict  # noqa: SLF001 - what says that it is its own has no other name
    for path, module in model.named_modules():
        kind = type(module)
        if kind._save_to_state_dict is not plain and not kind.__module__.startswith("torch."):  # noqa: SLF001
            raise ValueError(f"{path or 'the model'} saves its state by code of its own, which alone can load it")


def compiled_modules(model):
    """The names of what TorchScript has compiled in a model: it holds its tensors by itself."""
    return [name or "the model" for name, one in model.named_modules() if isinstance(one, torch.jit.ScriptModule)]


def initialise(model, missing, device, dtype=None):
    """Give weights of a skeleton that no checkpoint has what `reset_parameters` of their modules gives them.

    It is called on the device, and before other weights have values. Raises `ValueError` for modules without it, or
    where it leaves one of them as it was.
    """
    # Of names that mean one tensor the first counts: its module resets it.
    absent = [name for name in weights(model) if name in missing]
    for path in sorted({name.rpartition(".")[0] for name in absent}):
        module = model.get_submodule(path)
        reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
        names = [name for name in absent if name.rpartition(".")[0] == path]
        if reset is None:
            raise ValueError(f"{names} are missing, and {type(module).__name__} has no reset_parameters()")
        assign(model, ((name, empty(one, device, dtype)) for name, one in weights(model).items() if name in names))
        given = weights(model)
        with Written() as written:
            try:
                reset()
            except Exception as error:
                raise ValueError(
                    f"{names} are missing, and {type(module).__name__} cannot set them: {error}"
                ) from error
        after = weights(model)
        if left := [one for one in names if after[one] is not given[one] or not written.has(given[one])]:
            raise ValueError(f"{left} are missing, and reset_parameters() of {type(module).__name__} does not set them")


class Written(TorchFunctionMode):
    """In which it is noted which memory is written to, by functions whose names end as those do that write."""

    def __init__(self):
        super().__init__()
        self.storages = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        written = args[0] if args else kwargs.get("tensor")
        if func.__name__.endswith("_") and isinstance(written, torch.Tensor):  # `__setitem__` and `__set__` too.
            self.storages.add(written.untyped_storage())
        return func(*args, **kwargs)

    def has(self, tensor):
        return tensor.untyped_storage() in self.storages or not tensor.numel()
