"""Networks made of blocks, one family a file; their configurations are data."""

from repjax.models import ecbsr, fastvit, mobileone, repghost, replknet, repvgg, repvit, unireplknet
from repjax.models.ecbsr import ECBSR
from repjax.models.fastvit import FastViT
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
    "mobileone",
    "names",
    "register_model",
    "repghost",
    "replknet",
    "repvgg",
    "repvit",
    "unireplknet",
]
