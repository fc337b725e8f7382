"""Names of fused parameters and regions: the module they came from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from repjax.primitives import Kind
from repjax.tracing.plan.group import Group
from repjax.tracing.plan.parameters import Path, Variable
from repjax.tracing.program.weights import Weight

EQUATION = "y="
"""How a node begins that is named by what it computes: what a module holds before it is fused."""


def module_of(paths: Sequence[Path]) -> Path:
    """The deepest module that holds all the leaves; that of the first if there is none."""
    modules = [without_equations(path[:-1]) for path in paths]
    common: list[str] = []
    for words in zip(*modules, strict=False):
        if len(set(words)) != 1:
            break
        common.append(words[0])
    return tuple(common) or (modules[0] if modules else ())


def without_equations(path: Sequence[str]) -> Path:
    """A path without the nodes that are named by an equation."""
    return tuple(word for word in path if not word.startswith(EQUATION))


def scope_path(scope: str) -> Path:
    """Named scopes of an operation as a path; a source line is none."""
    if ":" in scope and not scope.startswith(EQUATION):
        return ()
    return without_equations([word for word in scope.split("/") if word])


def module_of_group(group: Group, variables: Sequence[Variable]) -> Path:
    """The module of a group: that of its variables where these say one, else its scopes."""
    heavy = [one for one in group.operations if one.kind is Kind.KERNEL]
    for operations in (heavy, group.operations):
        weights = [weight for one in operations for weight in one.weights if weight.variables]
        if weights:
            indices = sorted({index for weight in weights for index in weight.variables})
            paths = [variables[index].path for index in indices]
            unnamed = all(path[-1].isdigit() for path in paths)
            if module_of(paths) and not (unnamed and _scope_of(group)):
                return module_of(paths)
            break
    return _scope_of(group)


def _scope_of(group: Group) -> Path:
    """The named scopes of a group's kernels, or of its last operation that has some."""
    heavy = [one for one in group.operations if one.kind is Kind.KERNEL]
    for operation in (*heavy, *reversed(group.operations)):
        if scope_path(operation.scope):
            return scope_path(operation.scope)
    return ()


def indices_of(weights: Iterable[Weight]) -> list[int]:
    """The variables that come in as kernels, or all of them if none does."""
    weights = list(weights)
    kernels = {index for weight in weights for index in weight.kernels}
    every = {index for weight in weights for index in weight.variables}
    return sorted(kernels or every)


class Names:
    """Paths in a nested dict, each given once and none inside another."""

    def __init__(self) -> None:
        self._leaves: set[Path] = set()
        self._modules: set[Path] = {()}

    def take(self, module: Path, name: str) -> Path:
        """A free path for a leaf of a module; a number is added to the module if need be."""
        number = 0
        while True:
            suffix = f"_{number}" if number else ""
            place = (*module[:-1], module[-1] + suffix) if module else ()
            path = (*place, name) if module else (name + suffix,)
            above = [path[:length] for length in range(1, len(path))]
            free = path not in self._leaves and path not in self._modules
            if free and not any(part in self._leaves for part in above):
                self._leaves.add(path)
                self._modules.update(above)
                return path
            number += 1
