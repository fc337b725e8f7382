"""The four ways to train a network, each a few functions of its tree.

multi trains the network with branches and norms, as published. plain trains the network of
single convolutions. online trains the plain network's tree with branches beside its kernels, and
runs what they fold to. gradient trains the plain network, with gradients as branches would have
moved its kernels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

import repjax
from experiments.train import networks
from experiments.train.config import Network
from experiments.train.errors import RunError, one_line
from repjax.branches import Branch, Identity, Pointwise, orepa

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Form:
    """How a module is trained.

    Args:
        name: of the form.
        module: what runs.
        tree: initial variables, as they are trained.
        wide: of gradient, the tree with the branches that are followed.
    """

    name: str
    module: nn.Module
    tree: Tree
    wide: Tree | None = None

    def variables(self, tree: Tree) -> Tree:
        """What the module is applied to."""
        return repjax.fuse_params(tree) if self.name == "online" else tree

    def apply(self, tree: Tree, images: jax.Array) -> jax.Array:
        """Logits, at inference."""
        logits: Any = self.module.apply(
            self.variables(tree), images, **networks.mode(self.module, False)
        )
        found: jax.Array = logits
        return found

    def deploy(self, tree: Tree, images: Any) -> tuple[Callable[..., jax.Array], Tree]:
        """The function of the deploy network, and its variables.

        Args:
            tree: trained variables.
            images: or their shape and dtype.
        """
        own = hasattr(self.module, "deploy")
        if self.name == "multi" and own:
            return self.module.deploy().apply, repjax.fuse_params(tree)
        fused = repjax.fuse(self.apply, tree, images)
        if own:
            return self.module.deploy().apply, {"params": fused.params}
        return fused.apply, fused.params


def constants(path: str) -> bool:
    """What the branches of gradient hold fixed: their scales."""
    return path.endswith("/scale")


def make(config: Network, module: nn.Module, images: jax.Array, seed: int) -> Form:
    """The form that the settings ask for, with initial values.

    Args:
        config: of the network.
        module: what runs.
        images: a batch, of any size.
        seed: of the initial values.

    Raises:
        RunError: the module does not take the images, or the branches do not fit it.
    """
    key = jax.random.key(seed)
    try:
        tree = dict(jax.jit(module.init, compiler_options=_once())(key, images))
    except (ValueError, TypeError) as error:
        raise RunError(f"--network {config.network}: {one_line(error)}") from error
    nodes = any(
        "/y=" in jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]
    )
    if config.form == "multi":
        if not nodes:
            raise RunError(
                f"--form multi: {config.network} has no blocks with branches; --form plain trains "
                "it as it is, --form online adds branches"
            )
        return Form("multi", module, tree)
    if nodes:
        raise RunError(f"--form {config.form}: {config.network} has branches already; --form multi")
    if config.form == "plain":
        return Form("plain", module, tree)
    try:
        wide = repjax.add_branches(tree, branches(config.branches), jax.random.fold_in(key, 1))
    except (ValueError, TypeError) as error:
        raise RunError(f"--branches {config.branches}: {one_line(error)}") from error
    if config.form == "online":
        return Form("online", module, wide)
    return Form("gradient", module, repjax.fuse_params(wide), wide)


def _once() -> dict[str, bool | int | str] | None:
    """Options for a program that runs once: on the CPU, compiling costs more than running."""
    if jax.default_backend() != "cpu":
        return None
    return {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def branches(name: str) -> Any:
    """What `repjax.add_branches` adds.

    Args:
        name: a set that is known here, or an import path.

    Raises:
        RunError: it is neither.
    """
    if ":" in name:
        return networks.imported(name, "branches")
    sets = {"repvgg": _repvgg, "orepa": _orepa}
    if name not in sets:
        raise RunError(f"--branches {name}: expected repvgg, orepa or package:attribute")
    return sets[name]


def _repvgg(path: str, kernel: Any) -> tuple[Branch, ...]:
    return Pointwise(), Identity(optional=True)


def _orepa(path: str, kernel: Any) -> tuple[Branch, ...]:
    size = kernel.shape[:-2]
    square = len(size) == 2 and size[0] == size[1] > 1
    return (orepa(size[0]),) if square else ()
