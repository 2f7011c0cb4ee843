"""Devices: the mesh, where each array lives on it, and which rows each process reads."""

from zoo.parallel.activations import constrain_activations
from zoo.parallel.context import share_context
from zoo.parallel.job import join_job
from zoo.parallel.mesh import DATA_AXES, count_shares, make_mesh
from zoo.parallel.multihost import gather_digests, local_rows, place_batch, tell_all
from zoo.parallel.rules import RULES, choose_specs

__all__ = [
    "DATA_AXES",
    "RULES",
    "choose_specs",
    "constrain_activations",
    "count_shares",
    "gather_digests",
    "join_job",
    "local_rows",
    "make_mesh",
    "place_batch",
    "share_context",
    "tell_all",
]
