"""A model whose weights have no memory yet, while all that no checkpoint has has its values."""

import weakref
from contextlib import nullcontext, suppress

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from bench.strategies.reading.assign import assign, empty, others, swap, weights


def skeleton(build):
    """Build a model with its parameters and persistent buffers on meta; all else has the values that it is given.

    Raises `ValueError` for a model that TorchScript has compiled, or one in which other values come from weights.
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
        if compiled := compiled_modules(model):
            raise ValueError(f"{compiled[0]} is compiled by torch.jit.script: its tensors cannot be replaced")
        assign(model, [(name, mode.on_meta(one)) for name, one in weights(model).items() if not one.is_meta])
        # Memory that a weight had is not the weight's any more.
        valueless = [
            name for name, one in others(model).items() if one.is_meta or one.untyped_storage() in mode.storages
        ]
        if not valueless and not mode.made_others_than(weights(model)):
            return model
        lost = valueless or lost
    if not lost:
        raise failure
    raise ValueError(f"{lost} are in no checkpoint, and get their values from weights, which are not there yet")


class OnMeta(TorchFunctionMode):
    """In which tensors go to meta: everything that is made, or weights as modules register them, or parameters only.

    Nothing fills tensors on meta: they have no values, but to find that out takes longer than a load.
    """

    FILLS = ("uniform_", "normal_", "fill_", "zero_", "triu_", "tril_")

    def __init__(self, moved):
        super().__init__()
        # What was made; and of every storage the one on meta that stands for it.
        self.moved, self.made, self.storages = moved, [], weakref.WeakKeyDictionary()

    def __enter__(self):
        self.register_buffer = original = torch.nn.Module.register_buffer
        self.hook = register_module_parameter_registration_hook(lambda _module, _name, weight: self.move(weight))

        def register_buffer(module, name, tensor, persistent=True):
            original(module, name, tensor, persistent)
            if persistent and tensor is not None:
                self.move(tensor)

        if self.moved == "weights":
            torch.nn.Module.register_buffer = register_buffer
        return super().__enter__()

    def __exit__(self, *raised):
        self.hook.remove()
        torch.nn.Module.register_buffer = self.register_buffer
        return super().__exit__(*raised)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        filled = args[0] if args else kwargs.get("tensor")
        fills = func.__name__ in self.FILLS or getattr(func, "__module__", None) == "torch.nn.init"
        if fills and filled.is_meta:
            return filled
        if self.moved == "weights" and func is torch.empty and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        made = func(*args, **kwargs)
        if self.moved == "everything" and isinstance(made, torch.Tensor) and made.is_meta:
            self.made.append(weakref.ref(made))
        return made

    def move(self, weight):
        """Put a weight on meta, as itself to whoever has it; one with views is moved when the model is built."""
        if not weight.is_meta:
            with suppress(RuntimeError):
                swap(weight, self.on_meta(weight))

    def on_meta(self, tensor):
        """What a tensor is on meta: those that share memory share it there too."""
        storage, place = tensor.untyped_storage(), (tensor.storage_offset(), tensor.shape, tensor.stride())
        if storage not in self.storages:
            self.storages[storage] = torch.UntypedStorage(storage.nbytes(), device="meta")
        return torch.empty(0, dtype=tensor.dtype, device="meta").set_(self.storages[storage], *place)

    def made_others_than(self, tensors):
        """Whether tensors are alive that were made on meta, wherever the model has them, and are none of these."""
        alive = {id(one) for made in self.made if (one := made()) is not None}
        self.made.clear()  # What has weak references cannot be swapped.
        return bool(alive - {id(one) for one in tensors.values()})


def compiled_modules(model):
    """The names of what TorchScript has compiled in a model: it holds its tensors by itself."""
    return [name or "the model" for name, one in model.named_modules() if isinstance(one, torch.jit.ScriptModule)]


def initialise(model, missing, device, dtype=None):
    """Give weights of a skeleton that no checkpoint has what `reset_parameters` of their modules gives them.

    It is called on the device, and before other weights have values. Raises `ValueError` for modules without it.
    """
    # Of names that mean one tensor the first counts: its module resets it.
    for path in sorted({name.rpartition(".")[0] for name in weights(model) if name in missing}):
        module = model.get_submodule(path)
        reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
        absent = {
            name: one for name, one in weights(model).items() if name in missing and name.rpartition(".")[0] == path
        }
        if reset is None:
            raise ValueError(f"{sorted(absent)} are missing, and {type(module).__name__} has no reset_parameters()")
        assign(model, ((name, empty(one, device, dtype)) for name, one in absent.items()))
        reset()
