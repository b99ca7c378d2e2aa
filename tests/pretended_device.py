"""A pretended accelerator: tensors that hold CPU memory and behave as those of a GPU do.

``torch.device("pretended")`` is torch's PrivateUse1 device with a backend in Python. Its tensors refuse to mix with CPU
tensors and to become NumPy arrays, draw from a random generator of their own, choose CUDA's attention kernels and
follow CUDA's autocast lists, which are read from the header that torch ships. Operations that CUDA cannot compute in a
fixed order raise where torch's deterministic setting forbids them, and are noted where it does not.

``pretended()`` makes ``pick_device`` choose it and counts what it was asked to do: see ``Counts``.
"""

from __future__ import annotations

import functools
import sys
from collections import Counter
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
import torchvision  # noqa: F401, registers its operations
from pretended_cuda import ORDERED_IF_ASKED, RECURRENT, UNORDERED, attention, attention_backward, cast_lists
from torch.utils._device import _device_constructors
from torch.utils._foreach_utils import _foreach_supported_types
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

import crossmodal

NAME = "pretended"
SOURCE = str(Path(crossmodal.__file__).parent)
aten = torch.ops.aten
DispatchKey = torch._C.DispatchKey
COMPOUND = DispatchKey.CompositeImplicitAutograd


@dataclass
class Counts:
    """What a device was asked to do.

    kernels: operations that are more than a view. copies: between host and device, by direction. waits: for the device,
    by what waits and the line of crossmodal that asked. unordered: operations whose sums CUDA adds in any order.
    dtypes: floating types of the products that were computed.
    """

    kernels: int = 0
    copies: Counter = field(default_factory=Counter)
    waits: Counter = field(default_factory=Counter)
    unordered: Counter = field(default_factory=Counter)
    dtypes: Counter = field(default_factory=Counter)

    def reset(self) -> None:
        self.__init__()

    def wait(self, what: str) -> None:
        frame = sys._getframe(1)
        while frame is not None and not frame.f_code.co_filename.startswith(SOURCE):
            frame = frame.f_back
        line = frame and f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        self.waits[what, line or "elsewhere"] += 1


COUNTS = Counts()


class PretendedTensor(torch.Tensor):
    """A tensor of the pretended device; ``held`` has its numbers."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
        )

    def __init__(self, inner):
        assert not isinstance(inner, PretendedTensor)
        self.held = inner

    def __repr__(self):
        return f"PretendedTensor({self.held!r})"

    def tolist(self):
        return self.cpu().tolist()

    def new_tensor(self, data, dtype=None, device=None, **others):
        made = torch.tensor(data, dtype=dtype or (self.dtype if self.is_floating_point() else None), **others)
        return made.to(device or self.device)

    def storage(self):
        return self.held.storage()

    def untyped_storage(self):
        return self.held.untyped_storage()

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            memo[id(self)] = copied = PretendedTensor(self.held.clone()).requires_grad_(self.requires_grad)
            if isinstance(self, torch.nn.Parameter):
                copied._is_param = True
        return memo[id(self)]

    def __reduce_ex__(self, protocol):
        return _saved, (self.held.clone(),)

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return dispatch(function, args, kwargs or {})


def _saved(values):
    """A saved tensor as ``torch.load`` gives it under ``map_location="cpu"``."""
    return values


torch.serialization.add_safe_globals([_saved])


@dataclass(frozen=True)
class Operation:
    """What is looked up once of an operation, which is asked for a hundred thousand times."""

    name: str
    compound: bool
    kernel: bool
    seeded: bool
    copies: bool
    packs: bool
    indexes: bool


@functools.cache
def _operation(function):
    name = function._schema.name.split("::")[-1]
    return Operation(
        name,
        compound=function not in PACKING
        and function.has_kernel_for_dispatch_key(DispatchKey.CompositeImplicitAutograd),
        kernel=not function.is_view and name not in NO_KERNEL,
        seeded=torch.Tag.nondeterministic_seeded in function.tags,
        copies=function in COPIES,
        packs=function in PACKING,
        indexes=name in INDEXING,
    )


def dispatch(function, args, kwargs):
    """Compute an operation on the numbers that pretended tensors hold."""
    if function is aten.scaled_dot_product_attention.default:
        return _choose_attention(*args, **kwargs)
    operation = _operation(function)
    if operation.compound:  # inference mode does not take these apart
        return function.decompose(*args, **kwargs)
    tensors = []
    plain_args, plain_kwargs = [_plain(value, tensors) for value in args], _plain(kwargs, tensors)
    known = {id(tensor.held): tensor for tensor in tensors if isinstance(tensor, PretendedTensor)}
    if (
        not operation.copies
        and not operation.packs
        and not (operation.indexes and isinstance(args[0], PretendedTensor))
    ):
        _check_one_device(function, tensors, known)
    _count(operation, function, args, kwargs)
    device = kwargs.get("device")
    if device is not None:
        plain_kwargs["device"] = torch.device("cpu")
    with _own_generator() if operation.seeded else nullcontext():
        out = SPECIAL.get(function, function)(*plain_args, **plain_kwargs)
    if device is not None or operation.copies:
        to_host = torch.device(device).type == "cpu" if device is not None else type(args[0]) is torch.Tensor
        if to_host:
            return args[0] if function is aten.copy_.default else out
    for tensor in known.values():
        if tensor.held.shape != tensor.shape or tensor.held.stride() != tensor.stride():
            torch.Tensor.data.__set__(tensor, PretendedTensor(tensor.held))  # resized, or squeezed, in place
    return _wrapped(out, known, operation.packs)


def _wrapped(out, known, packs):
    if isinstance(out, list | tuple):
        return type(out)(_wrapped(value, known, packs) for value in out)
    if not isinstance(out, torch.Tensor) or (packs and not out.is_floating_point()):
        return out
    if id(out) in known:
        return known[id(out)]
    if out.is_inference() == torch.is_inference_mode_enabled():
        return PretendedTensor(out)
    with torch.inference_mode(out.is_inference()):  # a view is no more of an inference tensor than its base
        return PretendedTensor(out)


def _plain(value, tensors):
    """An argument with CPU tensors for pretended ones; notes all tensors in it."""
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return value.held if isinstance(value, PretendedTensor) else value
    if isinstance(value, list | tuple):
        return type(value)([_plain(item, tensors) for item in value])
    if isinstance(value, dict):
        return {key: _plain(item, tensors) for key, item in value.items()}
    if isinstance(value, torch.Generator):
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu'")
    return value


COPIES = {aten.copy_.default, aten._to_copy.default}
PACKING = {aten._pack_padded_sequence.default, aten._pack_padded_sequence_backward.default}  # lengths are on the CPU
PACKING |= {aten._pad_packed_sequence.default, aten.gru.data, aten.lstm.data}


def _check_one_device(function, tensors, known):
    if known and any(not isinstance(tensor, PretendedTensor) and tensor.dim() for tensor in tensors):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and cpu! "
            f"(in {function})"
        )


INDEXING = {"index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_"}
NO_KERNEL = {"detach", "alias", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh"}
NO_KERNEL |= {"_local_scalar_dense", "_has_compatible_shallow_copy_type", "_reshape_alias"}
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "convolution", "mv", "addmv", "dot"}
SIZE_ON_DEVICE = {"nonzero", "masked_select", "unique_dim", "_unique", "_unique2", "unique_consecutive", "equal"}
SIZE_ON_DEVICE |= {"is_nonzero", "_local_scalar_dense", "nms"}


def _count(operation, function, args, kwargs):
    name = operation.name
    if operation.copies:
        source = args[1] if function is aten.copy_.default else args[0]
        goal = args[0].device.type if function is aten.copy_.default else kwargs.get("device", source.device)
        kinds = source.device.type, torch.device(goal).type
        if kinds[0] != kinds[1]:
            COUNTS.copies["to the device" if kinds[1] == NAME else "to the host"] += 1
            if kinds[1] == "cpu" or not source.is_pinned():
                COUNTS.wait("copy to the host" if kinds[1] == "cpu" else "pageable copy")
            return
    indices = [index for index in args[1] if index is not None] if operation.indexes else []
    for index in indices:
        if not isinstance(index, PretendedTensor):
            COUNTS.copies["to the device"] += 1
            COUNTS.wait("pageable copy")
    by_mask = any(index.dtype in (torch.bool, torch.uint8) for index in indices)
    counted = name == "repeat_interleave" and kwargs.get("output_size") is None
    if name in SIZE_ON_DEVICE or by_mask or counted:
        COUNTS.wait(name)
    if operation.kernel:
        COUNTS.kernels += 1
    if name in PRODUCTS:
        COUNTS.dtypes[args[0].dtype] += 1
    unordered = name in UNORDERED or (name == "cumsum" and args[0].is_floating_point())
    if unordered and torch.are_deterministic_algorithms_enabled() and not _warn_only():
        raise RuntimeError(f"{name} does not have a deterministic implementation")
    if unordered or (name in ORDERED_IF_ASKED and (not torch.are_deterministic_algorithms_enabled() or _warn_only())):
        COUNTS.unordered[name] += 1


_warn_only = torch.is_deterministic_algorithms_warn_only_enabled

# ------------------------------------------------------------------------------------------- random numbers


class Backend(_DummyBackendModule):
    """What torch asks of a device's module: ``torch.pretended``."""

    state = torch.Generator().manual_seed(0).get_state()

    def manual_seed_all(self, seed: int) -> None:
        Backend.state = torch.Generator().manual_seed(seed ^ 0x5EED).get_state()  # not the CPU's numbers

    manual_seed = manual_seed_all

    def get_rng_state(self, device=NAME):
        return Backend.state.clone()

    def set_rng_state(self, state, device=NAME) -> None:
        assert type(state) is torch.Tensor
        Backend.state = state.clone()

    def get_amp_supported_dtype(self):
        return [torch.bfloat16, torch.float16]

    def set_device(self, device) -> None:
        pass

    def mem_get_info(self, device=None):
        return 2**30, 2**31


@contextmanager
def _own_generator():
    before = torch.get_rng_state()
    torch.set_rng_state(Backend.state)
    try:
        yield
    finally:
        Backend.state = torch.get_rng_state()
        torch.set_rng_state(before)


# ------------------------------------------------------------------------------------------- attention


def _choose_attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, *, scale=None, **others):
    """CUDA's choice where there is a mask: the efficient kernel, unless ``sdpa_kernel`` has ruled it out."""
    if not torch.backends.cuda.mem_efficient_sdp_enabled():
        plain = aten._scaled_dot_product_attention_math.default
        return plain(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)[0]
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, float("-inf"))
    efficient = aten._scaled_dot_product_efficient_attention.default
    return efficient(query, key, value, attn_mask, query.requires_grad, dropout_p, is_causal, scale=scale)[0]


SPECIAL = {
    aten._scaled_dot_product_efficient_attention.default: attention,
    aten._scaled_dot_product_efficient_attention_backward.default: attention_backward,
}


# ------------------------------------------------------------------------------------------- recurrent networks


class _Recurrent(torch.autograd.Function):
    """A recurrent network as one operation, as cuDNN's are."""

    @staticmethod
    def forward(ctx, op, spec, *leaves):
        ctx.plain = [
            leaf.held.detach().requires_grad_(leaf.is_floating_point()) if isinstance(leaf, PretendedTensor) else leaf
            for leaf in leaves
        ]
        args, kwargs = tree_unflatten(ctx.plain, spec)
        with torch.enable_grad():
            ctx.out = op(*args, **kwargs)
        COUNTS.kernels += 1
        COUNTS.dtypes[ctx.out[0].dtype] += 1
        return tuple(PretendedTensor(value.detach()) for value in ctx.out)

    @staticmethod
    def backward(ctx, *grads):
        COUNTS.kernels += 1
        inputs = [leaf for leaf in ctx.plain if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
        grads = torch.autograd.grad(ctx.out, inputs, [grad.held for grad in grads], materialize_grads=True)
        found = {id(leaf): PretendedTensor(grad) for leaf, grad in zip(inputs, grads, strict=True)}
        return None, None, *(found.get(id(leaf)) for leaf in ctx.plain)


def _recurrent(op):
    def call(*args, **kwargs):
        leaves, spec = tree_flatten((args, kwargs))
        return _Recurrent.apply(op, spec, *leaves)

    return call


# ------------------------------------------------------------------------------------------- autocast


def _cast(value, dtype):
    floating = isinstance(value, torch.Tensor) and value.is_floating_point() and value.device.type == NAME
    return value.to(dtype) if floating and value.dtype != torch.float64 else value


def _autocast(kind, op):
    def cast_and_call(*args, **kwargs):
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(DispatchKey.AutocastPrivateUse1)):
            floats = [t.dtype for t in tree_leaves(args) if isinstance(t, torch.Tensor) and t.is_floating_point()]
            if kind == "FP32_SET_OPT_DTYPE":
                if floats and floats[0] in (torch.float16, torch.bfloat16) and kwargs.get("dtype") is None:
                    kwargs["dtype"] = torch.float32
                return op(*args, **kwargs)
            dtype = {
                "LOWER_PRECISION_FP": torch.get_autocast_dtype(NAME),
                "CUDNN": torch.float16,  # whatever the type of autocast: aten/src/ATen/cudnn/AutocastRNN.cpp
                "PROMOTE": torch.float32 if torch.float32 in floats else torch.get_autocast_dtype(NAME),
            }.get(kind, torch.float32)
            args, kwargs = tree_map(lambda value: _cast(value, dtype), (args, kwargs))
            return op(*args, **kwargs)

    return cast_and_call


# ------------------------------------------------------------------------------------------- registration


def _register():
    _setup_privateuseone_for_python_backend(NAME, backend_module=Backend())
    _foreach_supported_types.append(PretendedTensor)
    kept = [torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")]
    kept[0].fallback(lambda op, *args, **kwargs: dispatch(op, args, kwargs), "PrivateUse1")
    kept[0].fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for kind, name, overload in cast_lists():
        packet = getattr(aten, name, None)
        if packet is not None and (overload or "default") in packet.overloads():
            op = getattr(packet, overload or "default")
            kept[1].impl(f"{name}.{overload}" if overload else name, _autocast(kind, op), "AutocastPrivateUse1")
    kept.append(torch.library.Library("torchvision", "IMPL"))
    kept[2].impl("nms", _autocast("FP32", torch.ops.torchvision.nms.default), "AutocastPrivateUse1")
    kept[1].impl("scaled_dot_product_attention", _choose_attention, "AutogradPrivateUse1")
    for name, overload in RECURRENT:
        op = getattr(getattr(aten, name), overload)
        kept[1].impl(f"{name}.{overload}", _recurrent(op), "AutogradPrivateUse1")
    return kept


_LIBRARIES = _register()
_device_constructors()  # torch looks them up once: before ``torch.tensor`` is another


def _made_on_cpu(make):
    """``torch.tensor`` and ``torch.as_tensor`` by way of the CPU: torch's own way does not reach a Python backend."""

    def made(data, *args, device=None, **kwargs):
        if device is None or torch.device(device).type != NAME:
            return make(data, *args, device=device, **kwargs)
        return make(data, *args, **kwargs).to(device)

    return made


PINNED: dict[int, torch.Tensor] = {}  # by address of the memory: CPU tensors that ``pin_memory`` gave


def _pin(tensor, device=None):
    del device
    if tensor.device.type != "cpu":
        raise RuntimeError(f"cannot pin a tensor on {tensor.device}, only dense CPU tensors can be pinned")
    pinned = torch.Tensor.clone(tensor)
    PINNED[pinned.untyped_storage().data_ptr()] = pinned  # kept, so that no other tensor gets its memory
    return pinned


def _is_pinned(tensor, device=None):
    del device
    return tensor.untyped_storage().data_ptr() in PINNED


@contextmanager
def pretended():
    """Run on the pretended device; gives its ``Counts``, starting from zero."""
    device = torch.device(NAME, 0)
    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.split(".")[0] in ("crossmodal", "stages") and hasattr(module, "pick_device"):
                patch.setattr(module, "pick_device", lambda: device)
        patch.setattr(torch, "tensor", _made_on_cpu(torch.tensor))
        patch.setattr(torch, "as_tensor", _made_on_cpu(torch.as_tensor))
        patch.setattr(torch.Tensor, "pin_memory", _pin)
        patch.setattr(torch.Tensor, "is_pinned", _is_pinned)
        patch.setattr(torch.accelerator, "is_available", lambda: True)  # a DataLoader pins then
        COUNTS.reset()
        PINNED.clear()
        yield COUNTS
