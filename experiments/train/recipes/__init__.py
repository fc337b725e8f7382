"""Recipes: one file each, whose docstring states command, accuracy and time."""

from __future__ import annotations

from types import ModuleType

from experiments.train.recipes import cifar10, digits, fashion_mnist, folder

RECIPES: dict[str, ModuleType] = {
    "digits": digits,
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
    "folder": folder,
}
"""By the name that stands first on the command line; every one has a `CONFIG`."""
