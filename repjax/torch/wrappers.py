"""What training scripts put around a state dict: entries of a checkpoint, prefixes of names."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "params_ema", "ema_model", "ema")
RAW = ("state_dict", "model_state_dict", "model", "module", "net", "network", "params", "weights")
# of entries and of prefixes alike; moving averages are preferred, as timm prefers them
ENTRIES = (*AVERAGES, *RAW)
COMPILED = "_orig_mod."
COUNTER = "n_averaged"  # beside the weights of torch.optim.swa_utils.AveragedModel
DEPTH = 4


class WrapperError(TypeError):
    """A checkpoint in which no state dict is found: no mapping of names to arrays."""


@dataclasses.dataclass(frozen=True)
class Unwrapped:
    """A state dict, and what was taken off it.

    Args:
        state: names to arrays.
        taken: what was around it, in words, from the outside in.
        left: what was left aside that could have been meant as well.
    """

    state: Mapping[str, Any]
    taken: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """What was taken off, as messages write it; empty where nothing was."""
        text = ", ".join(self.taken)
        return text + (f" (left aside: {', '.join(self.left)})" if self.left else "")


class View(Mapping[str, Any]):
    """Some arrays of a mapping under other names, read only when asked for.

    Args:
        whole: names to arrays.
        names: new names to those of the whole.

    Example:
        >>> dict(View({"module.weight": 1.0, "epoch": 2}, {"weight": "module.weight"}))
        {'weight': 1.0}
    """

    def __init__(self, whole: Mapping[str, Any], names: Mapping[str, str]) -> None:
        self._whole = whole
        self._names = names

    def __getitem__(self, name: str) -> Any:
        return self._whole[self._names[name]]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def unwrap(checkpoint: Any) -> Unwrapped:
    """Take a state dict out of the entries of a checkpoint.

    Args:
        checkpoint: names to arrays, or a dict with such a dict in a well-known entry.

    Raises:
        WrapperError: there is no state dict in it; the message says what was found.

    Example:
        >>> found = unwrap({"epoch": 3, "state_dict": {"conv.weight": 1.0}})
        >>> found.state, found.words
        ({'conv.weight': 1.0}, "entry 'state_dict'")
    """
    found = Unwrapped(checkpoint)
    while isinstance(found.state, dict):
        state = found.state
        inside = [name for name in ENTRIES if isinstance(state.get(name), Mapping) and state[name]]
        if not inside:
            break
        found = Unwrapped(
            state[inside[0]],
            (*found.taken, f"entry {inside[0]!r}"),
            (*found.left, *(f"entry {name!r}" for name in inside[1:])),
        )
    problem = _problem(found)
    if problem:
        raise WrapperError(f"expected a state dict, names to arrays; {problem}")
    return found


def _problem(found: Unwrapped) -> str:
    state = found.state
    if not isinstance(state, Mapping):
        return f"found {_what(state)}"
    if not state:
        return "found an empty dict"
    for name in state:
        if not isinstance(name, str):
            return f"found {name!r} for a name"
        # what is read from a file is an array
        value = state[name] if isinstance(state, dict) else 0.0
        if value is None or isinstance(value, Mapping | list | tuple) or _is_module(value):
            flax = "; Flax variables need no loading" if "entry 'params'" in found.taken else ""
            return f"found at {name!r} {_what(value)}{flax}"
    return ""


def _what(value: Any) -> str:
    if _is_module(value):
        return f"a module, {type(value).__name__}; give its .state_dict()"
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(map(repr, list(value)[:3]))}; give that if it is meant"
    return "None" if value is None else f"an object of type {type(value).__name__}"


def _is_module(value: Any) -> bool:
    return callable(getattr(value, "state_dict", None)) or callable(getattr(value, "apply", None))


def readings(found: Unwrapped, depth: int = DEPTH) -> Iterator[Unwrapped]:
    """The state dict as it is, then without prefixes that wrappers give its names.

    Where all other names have such a prefix too, they are left aside; otherwise they stay, to
    be reported.

    Example:
        >>> state = {"module.model.weight": 1.0, "n_averaged": 2}
        >>> [list(reading.state) for reading in readings(Unwrapped(state))]
        [['module.model.weight', 'n_averaged'], ['model.weight'], ['weight']]
    """
    yield found
    names = list(found.state)
    plain = {name.replace(COMPILED, ""): name for name in names}
    if any(COMPILED in name for name in names) and len(plain) == len(names):
        taken = (*found.taken, f"prefix {COMPILED!r}")
        yield from readings(Unwrapped(View(found.state, plain), taken, found.left), depth)
        return
    known = {name: name.split(".")[0] for name in names if name.split(".")[0] in ENTRIES}
    for prefix in [entry for entry in ENTRIES if entry in known.values()] if depth else ():
        begin = f"{prefix}."
        inner = {name[len(begin) :]: name for name in names if name.startswith(begin)}
        rest = [name for name in names if not name.startswith(begin) and name != COUNTER]
        left = found.left
        if all(name in known for name in rest):
            left = (*left, *dict.fromkeys(f"prefix {known[name] + '.'!r}" for name in rest))
        else:
            inner |= {name: name for name in rest if name not in inner}
        taken = (*found.taken, f"prefix {begin!r}")
        if inner:
            yield from readings(Unwrapped(View(found.state, inner), taken, left), depth - 1)
