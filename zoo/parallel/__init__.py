"""Devices: the mesh, where each array lives on it, and which rows each process reads."""

from zoo.parallel.activations import constrain_activations
from zoo.parallel.context import share_context
from zoo.parallel.mesh import DATA_AXES, count_shares, make_mesh
from zoo.parallel.multihost import local_rows, place_batch
from zoo.parallel.rules import RULES, choose_specs

__all__ = [
    "DATA_AXES",
    "RULES",
    "choose_specs",
    "constrain_activations",
    "count_shares",
    "local_rows",
    "make_mesh",
    "place_batch",
    "share_context",
]
