"""A pretended CUDA device: the code takes its GPU path on a machine without a GPU, and every operation is watched.

`pretended(data)` opens it. Every tensor that the code puts on "cuda" is then an `OnCard`. It reports the device cuda:0.
Its values are a CPU tensor (data="cpu", for small models: the results must equal the CPU's) or nothing (data="meta",
for models at full size). The `Card` that it yields counts bytes, FLOPs and kernels, and lists as `faults`:

    mixed      an operation on tensors of two devices, which CUDA refuses (raised as an error, too)
    wait       the host waits for the device: item, tolist, a copy to the host, a size that depends on values, an event
               that is read, a synchronisation
    pageable   a copy from memory that is not pinned, or an index that lies on the host: both wait
    math       an attention call that no fused kernel takes
    float64    a result in double precision with more than one value

It cannot tell the results of kernels, times, workspaces of cuBLAS and cuDNN, and fragmentation.
"""

from __future__ import annotations

import random
import sys
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = str(Path(__file__).parents[1]) + "/"
CARD = torch.device("cuda", 0)
ALIGNED = 512  # bytes; torch's allocator rounds up to them
COPIES = {"_to_copy", "copy_"}
INDEXING = {"index", "index_put_", "_index_put_impl_", "index_put", "_unsafe_index"}
SIZED_BY_VALUES = {"nonzero", "masked_select", "unique_dim", "_unique2", "unique_consecutive"}
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "convolution"}
PLAIN = {"linear", "layer_norm", "rms_norm"}  # composed operations that hold nothing beside their result
MOVES = {"to", "type_as", "cpu", "cuda", "item"}  # composed operations that may move a tensor
DOUBLE = (torch.float64, torch.complex128)
PARTIAL = ("engine.history", "engine.to_device", "models.", "scope.", "baselines.")  # their caches may hold tensors


class Mixed(RuntimeError):
    """An operation on tensors of two devices."""


class OnCard(torch.Tensor):
    """A tensor that reports cuda:0. `held` has its values, or none."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnCard:
        with torch.inference_mode(False):
            made = torch.Tensor._make_wrapper_subclass(
                cls,
                held.size(),
                strides=held.stride(),
                storage_offset=held.storage_offset(),
                dtype=held.dtype,
                device=CARD,
                requires_grad=False,
            )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func}: the pretended device is closed")

    def __repr__(self, *_: Any, **__: Any) -> str:
        return f"OnCard({tuple(self.shape)}, {self.dtype})"

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, new: Tensor) -> None:
        torch.Tensor.data.__set__(self, new)  # type: ignore[attr-defined]
        self.held = new.held  # type: ignore[attr-defined]


class OnHost(torch.Generator):
    """A generator of the host that reports the device it was asked for."""

    def __new__(cls, device: Any = "cpu") -> OnHost:
        made = super().__new__(cls, "cpu")
        made.reported = CARD if torch.device(device).type == "cuda" else torch.device(device)
        return made

    @property
    def device(self) -> torch.device:
        return self.reported


@dataclass
class Card:
    """What the pretended device saw. `watching`: faults are noted; the loop of a video sets it."""

    total: int = 10**15  # bytes of the device; more raise OutOfMemoryError
    watching: bool = False
    allowed: int = 0  # waits that the running decision may still cause
    decided: int = 0  # waits that decisions caused
    live: int = 0
    peak: int = 0
    peak_at: str = ""
    events: int = 0  # recorded
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)  # (kind, place) -> times
    flops: Counter[tuple[str, str]] = field(default_factory=Counter)  # (dtype, place) -> 2 per multiply-add
    kernels: Counter[str] = field(default_factory=Counter)  # of attention
    _sizes: dict[int, int] = field(default_factory=dict)
    _watch: dict[int, Any] = field(default_factory=dict)

    def fault(self, kind: str) -> None:
        if not self.watching:
            return
        if kind == "wait" and self.allowed:
            self.allowed, self.decided = self.allowed - 1, self.decided + 1
            return
        self.faults[kind, place()] += 1

    def times(self, *kinds: str) -> int:
        """How often faults of these kinds occurred."""
        return sum(count for (kind, _), count in self.faults.items() if kind in kinds)

    def hold(self, held: Tensor) -> None:
        """Count the storage of `held` until it is freed. Raises OutOfMemoryError."""
        storage = held.untyped_storage()
        key = storage._cdata
        if key in self._sizes:
            return
        size = -(-storage.nbytes() // ALIGNED) * ALIGNED
        if self.live + size > self.total:
            free = (self.total - self.live) / 1e9
            raise torch.OutOfMemoryError(f"{size / 1e9:.2f} GB wanted, {free:.2f} GB free, at {place()}")
        self._sizes[key] = size
        self._watch[key] = weakref.ref(storage, lambda _: self._freed(key))
        self.live += size
        self._note(size)

    def briefly(self, size: int) -> None:
        """A kernel holds `size` bytes while it runs."""
        self.live += size
        self._note(size)
        self.live -= size

    def restart(self) -> None:
        """Forget everything but the bytes that are held."""
        self.peak, self.peak_at, self.decided = self.live, "", 0
        for counter in (self.faults, self.flops, self.kernels):
            counter.clear()

    def _note(self, size: int) -> None:
        if self.live > self.peak:
            self.peak = self.live
            if size > 1e6:
                self.peak_at = place()

    def _freed(self, key: int) -> None:
        self.live -= self._sizes.pop(key)
        del self._watch[key]

    def slow_products(self) -> dict[str, float]:
        """The share of all FLOPs of every place that multiplies in float32 or float64."""
        total = sum(self.flops.values()) or 1
        return {where: n / total for (dtype, where), n in self.flops.items() if dtype in ("float32", "float64")}


@dataclass
class Event:
    """An event on the stream. To record it does not wait; to read it while a video is made does."""

    card: Card
    at: float = 0.0

    def record(self, stream: Any = None) -> None:
        self.card.events += 1
        self.at = time.perf_counter()

    def elapsed_time(self, other: Event) -> float:
        """Milliseconds from this event to another."""
        self.card.fault("wait")
        return 1000 * (other.at - self.at)

    def synchronize(self) -> None:
        self.card.fault("wait")


def place() -> str:
    """The innermost two lines of the project that are running, as file:function."""
    frame, found = sys._getframe(2), []
    while frame is not None and len(found) < 2:
        name = frame.f_code.co_filename
        if name.startswith(ROOT) and name != __file__ and "/site-packages/" not in name:  # .venv may lie in ROOT
            found.append(f"{name.removeprefix(ROOT)}:{frame.f_code.co_name}")
        frame = frame.f_back  # type: ignore[assignment]
    return " < ".join(found) or "elsewhere"


def attention_kernel(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, grouped: bool = False) -> str:
    """The kernel that torch takes on an Ampere or Hopper card: flash (or cuDNN), efficient, or math."""
    alike = q.dtype == k.dtype == v.dtype and q.shape[-1] == k.shape[-1] == v.shape[-1]
    dense = all(x.stride(-1) == 1 or x.shape[-1] == 1 for x in (q, k, v))
    if not alike or not dense or q.dim() != 4 or 0 in (q.shape[-2], k.shape[-2]):
        return "math"
    half, width = q.dtype in (torch.float16, torch.bfloat16), q.shape[-1]
    if half and mask is None and width <= 256 and width % 8 == 0:
        return "flash"
    same_heads = q.shape[1] == k.shape[1]
    if (half or q.dtype == torch.float32) and same_heads and width % (8 if half else 4) == 0:
        return "efficient" if mask is None or mask.dtype in (q.dtype, torch.bool) else "math"
    return "math"


def signature(x: Any) -> Any:
    """What the shape of a result may depend on."""
    if isinstance(x, Tensor):
        return tuple(x.shape), x.stride(), x.dtype
    if isinstance(x, list | tuple):
        return tuple(map(signature, x))
    return x


def tensors_in(values: Any) -> Iterator[Tensor]:
    for x in values:
        if isinstance(x, Tensor):
            yield x
        elif isinstance(x, list | tuple):
            yield from tensors_in(x)


@lru_cache(maxsize=4096)
def traits(func: Any) -> tuple[str, bool, bool]:
    """(name, whether torch composes it of others, whether it makes one new tensor) of an operation."""
    schema, name = func._schema, func._schema.name.removeprefix("aten::")
    composed = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")
    fresh = not func.is_view and not schema.is_mutable and [r.alias_info for r in schema.returns] == [None]
    return name, composed, fresh and str(schema.returns[0].type) == "Tensor"


class Operations(TorchDispatchMode):
    """Runs every operation on the tensors that the device holds, and tells the card."""

    def __init__(self, card: Card, data: str, script: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.card, self.data, self.script = card, data, script
        self._known: dict[Any, Any] = {}  # operation and shapes -> shape, stride and dtype of the result

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [*tensors_in(args), *tensors_in(kwargs.values())]
        here = [x for x in given if isinstance(x, OnCard)]
        device = kwargs.get("device") or next((x for x in args if isinstance(x, torch.device)), None)
        if not here and (device is None or device.type != "cuda"):
            return func(*args, **kwargs)
        name, composed, fresh = traits(func)
        if name == "_has_compatible_shallow_copy_type":  # nn.Module.to asks whether to keep its parameter objects
            return False
        if composed and (name in MOVES or self.data == "meta"):
            return self._composed(func, name, args, kwargs)
        self._examine(name, func, given, here, kwargs)
        if name == "_local_scalar_dense":
            return here[0].held.item() if self.data == "cpu" else self.script(here[0])
        leaves = bool(here) and device is not None and device.type != "cuda"
        if name in COPIES and (leaves or not isinstance(given[0], OnCard)) and self.data == "meta" and here:
            return self._to_host(name, given, kwargs)
        out = self._run(func, name, args, kwargs, fresh and not leaves)
        if leaves and name == "_to_copy":
            return out
        return self._wrapped(out, {id(x.held): x for x in here})

    def _composed(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """An operation that torch composes of others: those are run, and what they do is known the next time."""
        key = (func, signature(args)) if name in PLAIN and not kwargs else None
        if key in self._known:
            shape, stride, dtype, work = self._known[key]
            if work:
                self.card.flops[work[0], place()] += work[1]
            return self._wrapped(torch.empty_strided(shape, stride, dtype=dtype, device="meta"), {})
        before = Counter(self.card.flops) if key else None
        with self:
            out = func.decompose(*args, **kwargs)
        if key and self.data == "meta":
            new = self.card.flops - before
            work = next(((dtype, n) for (dtype, _), n in new.items()), None)
            self._known[key] = out.held.shape, out.held.stride(), out.held.dtype, work
        return out

    def _examine(self, name: str, func: Any, given: list[Tensor], here: list[OnCard], kwargs: dict[str, Any]) -> None:
        """Note what the operation does wrong."""
        card, host = self.card, [x for x in given if not isinstance(x, OnCard)]
        large = [x for x in host if x.dim()]
        if name in COPIES:
            source, target = (given[-1], given[0]) if name == "copy_" else (given[0], None)
            asked = kwargs.get("device") or source.device
            onto = asked.type == "cuda" if target is None else isinstance(target, OnCard)
            if isinstance(source, OnCard) and not onto:
                card.fault("wait")
            elif not isinstance(source, OnCard) and source.numel() and onto:
                pinned = hasattr(source, "pinned_") and (kwargs.get("non_blocking") or name == "copy_")
                if not pinned:
                    card.fault("pageable")
        elif name in INDEXING:
            if large:
                card.fault("pageable")
            if any(x.dtype in (torch.bool, torch.uint8) for x in given[1:]):
                card.fault("wait")  # positions of a mask: how many there are depends on values
        elif here and large:
            card.fault("mixed")
            raise Mixed(f"{func}: {[(tuple(x.shape), str(x.device)) for x in given]} at {place()}")
        elif name == "_local_scalar_dense" or name in SIZED_BY_VALUES:
            card.fault("wait")

    def _to_host(self, name: str, given: list[Tensor], kwargs: dict[str, Any]) -> Tensor:
        """A copy to the host of a tensor without values: zeros."""
        if name == "copy_":
            return given[0].zero_()
        return torch.zeros(given[0].shape, dtype=kwargs.get("dtype") or given[0].dtype)

    def _run(self, func: Any, name: str, args: Any, kwargs: Any, fresh: bool) -> Any:
        """The result on plain tensors. Without values, what is known of the same shapes is not asked again."""
        if self.data == "cpu":
            return self._counted(name, args, func(*self._bare(args), **self._bare(kwargs)))
        key = (func, signature(args), tuple((k, signature(v)) for k, v in kwargs.items())) if fresh else None
        known = self._known.get(key) if key else None
        if known is not None:
            return self._counted(name, args, torch.empty_strided(known[0], known[1], dtype=known[2], device="meta"))
        if name == "_fused_rms_norm":
            x = args[0].held
            return torch.empty_like(x), x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)
        if name == "copy_":
            return args[0].held
        out = func(*self._bare(args), **self._bare(kwargs))
        if key:
            self._known[key] = out.shape, out.stride(), out.dtype
        return self._counted(name, args, out)

    def _bare(self, x: Any) -> Any:
        """The plain tensors and the plain device that stand for those of the card."""
        if isinstance(x, OnCard):
            return x.held
        if isinstance(x, Tensor):
            return x.to("meta") if self.data == "meta" and x.dim() else x
        if isinstance(x, torch.device):
            return torch.device(self.data) if x.type == "cuda" else x
        if isinstance(x, dict):
            return {k: self._bare(v) for k, v in x.items() if k not in ("pin_memory", "non_blocking")}
        return type(x)(map(self._bare, x)) if isinstance(x, list | tuple) else x

    def _counted(self, name: str, args: Any, out: Any) -> Any:
        """Add the FLOPs of a product."""
        if name in PRODUCTS:
            a, b = list(tensors_in(args))[-2:] if name != "convolution" else args[:2]
            inner = b.numel() // b.shape[0] if name == "convolution" else a.shape[-1]
            self.card.flops[str(b.dtype).removeprefix("torch."), place()] += 2 * out.numel() * inner
        return out

    def _wrapped(self, out: Any, back: dict[int, OnCard]) -> Any:
        if isinstance(out, list | tuple):
            return type(out)(self._wrapped(x, back) for x in out)
        if not isinstance(out, Tensor):
            return out
        if id(out) in back:
            return back[id(out)]
        self.card.hold(out)
        if out.dtype in DOUBLE and out.numel() > 1:
            self.card.fault("float64")
        return OnCard(out)


class Functions(TorchFunctionMode):
    """What can only be caught by its Python name."""

    def __init__(self, operations: Operations) -> None:
        super().__init__()
        self.operations, self.card = operations, operations.card

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.pin_memory:
            pinned = args[0].clone()
            pinned.pinned_ = True
            return pinned
        if func in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or "cpu").type == "cuda":
            return func(*args, **{k: v for k, v in kwargs.items() if k != "device"}).to(kwargs["device"])
        if func is torch.Tensor.tolist and isinstance(args[0], OnCard):
            return self._list(args[0])
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(args[0], OnCard):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            args = (args[0], tuple(map(self._index, index)), *args[2:])
        if func is F.scaled_dot_product_attention:
            named = dict(zip(("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), args, strict=False))
            if isinstance((named | kwargs)["query"], OnCard):
                return self._attention(**named | kwargs)
        return func(*args, **kwargs)

    def _index(self, x: Any) -> Any:
        """One index. A list, or a tensor on the host, is copied from pageable memory."""
        if isinstance(x, list | range):
            x = torch.tensor(list(x))
        if not isinstance(x, Tensor) or isinstance(x, OnCard) or not x.dim():
            return x
        self.card.fault("pageable")
        held = x.to(self.operations.data)
        self.card.hold(held)
        return OnCard(held)

    def _list(self, x: OnCard) -> Any:
        self.card.fault("wait")
        if self.operations.data == "cpu":
            return x.held.tolist()
        values = torch.tensor([self.operations.script(x) for _ in range(x.numel())])
        return values.view(x.shape).tolist()

    def _attention(self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, **named: Any) -> OnCard:
        """Attention in one kernel; torch itself would ask a CUDA library which."""
        kernel = attention_kernel(query, key, value, attn_mask, bool(named.get("enable_gqa")))
        self.card.kernels[kernel] += 1
        b, heads, n, width = query.shape[0], query.shape[1], query.shape[-2], value.shape[-1]
        work = 4 * query.shape[:-1].numel() * key.shape[-2] * width
        self.card.flops[f"attention {str(query.dtype).removeprefix('torch.')}", place()] += work
        if kernel == "math":
            self.card.fault("math")
            self.card.briefly(2 * b * heads * n * key.shape[-2] * 4)  # scores and their softmax, float32
        if self.operations.data == "cpu":
            plain = [x.held if isinstance(x, OnCard) else x for x in (query, key, value, attn_mask)]
            out = F.scaled_dot_product_attention(*plain[:3], attn_mask=plain[3], **named)
        else:  # the kernels write (batch, tokens, heads, width)
            out = torch.empty(b, n, heads, width, dtype=query.dtype, device="meta").transpose(1, 2)
        self.card.hold(out)
        return OnCard(out)


def scripted(seed: int = 0, high: float = 0.1) -> Callable[[Tensor], Any]:
    """What the host reads of tensors without values: numbers from 0 to `high`, so that methods skip and compute."""
    draw = random.Random(seed)

    def value(x: Tensor) -> Any:
        if x.dtype == torch.bool:
            return True
        return draw.uniform(0, high) if x.dtype.is_floating_point else 0

    return value


@contextmanager
def pretended(data: str, total: int = 10**15, script: Callable[[Tensor], Any] | None = None) -> Iterator[Card]:
    """Open the pretended device. `data`: "cpu" or "meta"; `total`: its bytes."""
    torch._C._ensureCUDADeviceGuardSet()
    card = Card(total)
    operations = Operations(card, data, script or scripted())
    _forget_caches()
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    with ExitStack() as stack:
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # else .to() keeps the tensors of the host
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrite)
        for name, answer in _answers(card).items():
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
        stack.enter_context(mock.patch.object(torch, "Generator", OnHost))
        stack.enter_context(Functions(operations))
        stack.enter_context(operations)
        try:
            yield card
        finally:
            _forget_caches()


def _answers(card: Card) -> dict[str, Callable[..., Any]]:
    """What torch.cuda says of the card."""
    properties = SimpleNamespace(name="pretended", total_memory=card.total, uuid="0", major=8, minor=0)

    def restart(device: Any = None) -> None:
        card.peak = card.live

    return {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "synchronize": lambda device=None: card.fault("wait"),
        "current_stream": lambda device=None: None,
        "Event": lambda enable_timing=False: Event(card),
        "empty_cache": lambda: None,
        "reset_peak_memory_stats": restart,
        "max_memory_allocated": lambda device=None: card.peak,
        "max_memory_reserved": lambda device=None: card.peak,
        "memory_allocated": lambda device=None: card.live,
        "memory_reserved": lambda device=None: card.live,
        "mem_get_info": lambda device=None: (card.total - card.live, card.total),
        "get_rng_state": lambda device=None: None,
        "set_rng_state": lambda state, device=None: None,
        "get_device_properties": lambda device=None: properties,
        "get_device_capability": lambda device=None: (8, 0),
    }


def _forget_caches() -> None:
    """Clear the caches of our modules: they may hold tensors of another device."""
    for name, module in list(sys.modules.items()):
        if name.startswith(PARTIAL):
            for member in list(vars(module).values()):
                if callable(getattr(member, "cache_clear", None)):
                    member.cache_clear()
