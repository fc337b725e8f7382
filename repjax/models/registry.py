"""Networks by name: `create`, `names`, and how a family registers its own."""

from __future__ import annotations

import ast
import dataclasses
import difflib
from collections.abc import Callable
from typing import Any

from jax.typing import DTypeLike

from repjax.blocks.fields import require_whole
from repjax.models.network import NO_CLASSES, Network
from repjax.models.plain_form import FORMS, Form, NetworkWithPlainForm

_MODELS: dict[str, tuple[type[Network], Any]] = {}


def register_model(name: str, network: type[Network], config: Any) -> None:
    """Make a network known by name, at import time.

    Args:
        name: published name in snake case.
        network: a `Network` with a field `config`.
        config: a frozen dataclass of sizes, with a field `preprocessing`.

    Raises:
        ValueError: the name is taken.

    Example:
        >>> from repjax.models.repvgg import CONFIGS, RepVGG
        >>> register_model("repvgg_doctest", RepVGG, CONFIGS["repvgg_a0"])
        >>> "repvgg_doctest" in names()
        True
        >>> del _MODELS["repvgg_doctest"]
    """
    if name in _MODELS:
        raise ValueError(f"a network named {name!r} is known already")
    _MODELS[name] = network, config


def names() -> list[str]:
    """Names of all networks.

    Example:
        >>> "repvgg_a0" in names()
        True
    """
    return list(_MODELS)


def networks() -> dict[str, tuple[type[Network], Any]]:
    """The class and the configuration of each network by name.

    Example:
        >>> networks()["repvgg_a0"][0].__name__
        'RepVGG'
    """
    return dict(_MODELS)


def create(
    name: str,
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
    deployed: bool = False,
    dtype: DTypeLike | None = None,
    drop_path: float | None = None,
    form: Form = "multi",
    **overrides: Any,
) -> Network:
    """A network by its published name.

    Args:
        name: one of `names()`.
        num_classes: outputs of the head.
        in_channels: channels of the images.
        deployed: be the deploy twin, whose variables `repjax.fuse_params` makes.
        dtype: compute type; None promotes.
        drop_path: rate of stochastic depth in training at the last block; None is the
            configuration's own.
        form: "multi" is the network as published; "plain" has one convolution and one norm,
            ordinary Flax modules, in place of each block (RepVGG and MobileOne).
        **overrides: fields of the configuration (sizes: small versions of a network are made
            this way) or of the module (`param_dtype`, `momentum`, `axis_name`, ...).

    Raises:
        ValueError: the name is unknown, overrides are unknown (all are listed), `num_classes`
            or `in_channels` is no whole number, at least 1, `drop_path` is given for a family
            that has none, or `form` is another, or plain for a family without that form.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model = create("repvgg_a0", num_classes=10, depths=(1, 1, 1, 1))
        >>> variables = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 32, 32, 3)))
        >>> variables["params"]["head"]["kernel"].shape
        (1280, 10)
    """
    if not isinstance(name, str):
        raise ValueError(
            f"name is a string such as 'repvgg_a0'; found {name!r}; repjax.models.names() lists all"
        )
    require_whole("num_classes", num_classes, hint=NO_CLASSES)
    require_whole("in_channels", in_channels)
    if name not in _MODELS:
        close = difflib.get_close_matches(name, _MODELS, n=3, cutoff=0.4)
        hint = f", did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(f"no network is named {name!r}{hint}; repjax.models.names() lists all")
    network, config = _MODELS[name]
    sizes = {field.name for field in dataclasses.fields(config)}
    fields = {field.name for field in dataclasses.fields(network)} - {"name", "parent", "config"}
    if drop_path is not None and "drop_path" in sizes:
        overrides["drop_path"] = drop_path
    elif drop_path:
        raise ValueError(f"{name} has no drop path, found drop_path={drop_path}; leave it out")
    if form != "multi":
        _require_form(name, form)
        overrides["form"] = form
    unknown = sorted(set(overrides) - sizes - fields)
    if unknown:
        raise ValueError(
            f"{name} knows no {', '.join(unknown)}; its configuration has "
            f"{', '.join(sorted(sizes))}; the module has {', '.join(sorted(fields))}"
        )
    changes = {key: frozen(value) for key, value in overrides.items() if key in sizes}
    rest = {key: value for key, value in overrides.items() if key not in sizes}
    make: Callable[..., Network] = network  # a subclass, which has a config
    return make(
        config=dataclasses.replace(config, **changes),
        num_classes=num_classes,
        in_channels=in_channels,
        deployed=deployed,
        dtype=dtype,
        **rest,
    )


def _require_form(name: str, form: Any) -> None:
    """Refuse a form that is unknown, or that this network does not have."""
    if form not in FORMS:
        raise ValueError(f"form is 'multi' or 'plain'; found {form!r}")
    if not issubclass(_MODELS[name][0], NetworkWithPlainForm):
        kinds = (kind for kind, _ in _MODELS.values())
        known = {kind.__name__ for kind in kinds if issubclass(kind, NetworkWithPlainForm)}
        raise ValueError(f"{name} has no plain form; {' and '.join(sorted(known))} have one")


def override_of(text: str) -> tuple[str, Any]:
    """An override as it is written on a command line.

    Args:
        text: FIELD=VALUE; what is no Python literal is taken as a word.

    Raises:
        ValueError: it is not of this form.

    Example:
        >>> override_of("depths=(1,2,2,1)"), override_of("form=plain")
        (('depths', (1, 2, 2, 1)), ('form', 'plain'))
    """
    field, equals, value = text.partition("=")
    if not equals or not field.isidentifier():
        raise ValueError(f"{text!r}: expected FIELD=VALUE, such as depths=(1,2,2,1)")
    try:
        return field, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return field, value


def frozen(value: Any) -> Any:
    """Lists as tuples, all the way down, so that configurations stay hashable."""
    return tuple(frozen(item) for item in value) if isinstance(value, list | tuple) else value
