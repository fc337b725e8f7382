"""The network of a run: one of repjax's by name, or a module of the user's by import path."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

import repjax
from experiments.train.config import Network
from experiments.train.errors import RunError, one_line
from repjax.models.registry import override_of


def create(config: Network, num_classes: int, in_channels: int) -> nn.Module:
    """The module that is trained.

    Args:
        config: of the network.
        num_classes: outputs.
        in_channels: of the images.

    Raises:
        RunError: there is no such network, or it does not take what was asked for.
    """
    dtype: Any = None if config.dtype == "float32" else jnp.bfloat16
    if ":" in config.network:
        if config.override:
            raise RunError(f"--override is for networks of repjax, not for {config.network}")
        return _users(config.network, num_classes, dtype)
    try:
        overrides = dict(map(override_of, config.override))
    except ValueError as error:
        raise RunError(f"--override {error}") from error
    try:
        return repjax.models.create(
            config.network,
            num_classes=num_classes,
            in_channels=in_channels,
            dtype=dtype,
            form="multi" if config.form == "multi" else "plain",
            **overrides,
        )
    except (ValueError, TypeError) as error:
        raise RunError(f"--network {config.network}: {one_line(error)}") from error


def imported(path: str, flag: str) -> Any:
    """What stands at an import path.

    Args:
        path: package.module:attribute.
        flag: of the command line, for messages.

    Raises:
        RunError: it cannot be imported.
    """
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever a user's module raises
        raise RunError(f"--{flag} {path}: {type(error).__name__}: {one_line(error)}") from error


def _users(path: str, num_classes: int, dtype: Any) -> nn.Module:
    found = imported(path, "network")
    if not isinstance(found, nn.Module):
        try:
            found = found(num_classes)
        except Exception as error:
            raise RunError(
                f"--network {path}: expected a Flax module, or a function of the number of classes "
                f"that gives one; {type(error).__name__}: {one_line(error)}"
            ) from error
    if not isinstance(found, nn.Module):
        raise RunError(f"--network {path}: gives {type(found).__name__}, expected a Flax module")
    if dtype is None:
        return found
    if not hasattr(found, "dtype"):
        raise RunError(f"--dtype bfloat16: {path} has no field dtype to set")
    changed: nn.Module = found.clone(dtype=dtype)
    return changed


def mode(module: nn.Module, train: bool) -> dict[str, Any]:
    """The argument `train` of a module's call, where it has one."""
    return (
        {"train": train} if "train" in inspect.signature(type(module).__call__).parameters else {}
    )
