"""Networks made of blocks, one family a file; their configurations are data."""

from repjax.models import (
    ecbsr,
    fastvit,
    ghostnetv3,
    lcnetv2,
    mobileone,
    repghost,
    replknet,
    repvgg,
    repvit,
    unireplknet,
)
from repjax.models.ecbsr import ECBSR
from repjax.models.fastvit import FastViT
from repjax.models.ghostnetv3 import GhostNetV3
from repjax.models.lcnetv2 import LCNetV2
from repjax.models.mobileone import MobileOne
from repjax.models.network import Network, Preprocessing
from repjax.models.registry import create, names, register_model
from repjax.models.repghost import RepGhostNet
from repjax.models.replknet import RepLKNet
from repjax.models.repvgg import RepVGG
from repjax.models.repvit import RepViT
from repjax.models.unireplknet import UniRepLKNet

__all__ = [
    "ECBSR",
    "FastViT",
    "GhostNetV3",
    "LCNetV2",
    "MobileOne",
    "Network",
    "Preprocessing",
    "RepGhostNet",
    "RepLKNet",
    "RepVGG",
    "RepViT",
    "UniRepLKNet",
    "create",
    "ecbsr",
    "fastvit",
    "ghostnetv3",
    "lcnetv2",
    "mobileone",
    "names",
    "register_model",
    "repghost",
    "replknet",
    "repvgg",
    "repvit",
    "unireplknet",
]
