"""Low-rank compression of neural networks: factors, ranks, layers, whole models, and what they cost."""

from lowrank_utils.activations import activation_bytes
from lowrank_utils.allocate import allocate_ranks
from lowrank_utils.budget_explorer import BudgetExplorer
from lowrank_utils.by_layer import LayerCost, LayerTable, cost_by_layer
from lowrank_utils.calibrate import Moments, calibrate
from lowrank_utils.cascade import cascade
from lowrank_utils.compress import compress
from lowrank_utils.cost import (
    Cost,
    CostTable,
    cost_table,
    count_params,
    measure_latency,
    size_bytes,
)
from lowrank_utils.counters import flopth_counts
from lowrank_utils.data import Split, load_split
from lowrank_utils.data_aware import WeightedFactors, weighted_factors
from lowrank_utils.explorer import RankExplorer
from lowrank_utils.layers import LowRankLinear
from lowrank_utils.macs import count_macs
from lowrank_utils.models import Net, NetLite
from lowrank_utils.optimize_rank import OptimizeRank
from lowrank_utils.pivoted import PivotedLinear
from lowrank_utils.ranks import break_even_rank, rank_for_energy
from lowrank_utils.report import LayerReport, Report
from lowrank_utils.repro import set_seed
from lowrank_utils.search import RankSearch, find_rank
from lowrank_utils.spectral_rules import evbmf_rank, gavish_donoho_rank
from lowrank_utils.speed import Speed, measure_speed
from lowrank_utils.stacked import train_nets
from lowrank_utils.svd import low_rank_approximation, relative_error, singular_values, truncated_svd
from lowrank_utils.training import accuracy, auc, train_nn
from lowrank_utils.within import compress_within

__all__ = [
    "BudgetExplorer",
    "Cost",
    "CostTable",
    "LayerCost",
    "LayerReport",
    "LayerTable",
    "LowRankLinear",
    "Moments",
    "Net",
    "NetLite",
    "OptimizeRank",
    "PivotedLinear",
    "RankExplorer",
    "RankSearch",
    "Report",
    "Speed",
    "Split",
    "WeightedFactors",
    "accuracy",
    "activation_bytes",
    "allocate_ranks",
    "auc",
    "break_even_rank",
    "calibrate",
    "cascade",
    "compress",
    "compress_within",
    "cost_by_layer",
    "cost_table",
    "count_macs",
    "count_params",
    "evbmf_rank",
    "find_rank",
    "flopth_counts",
    "gavish_donoho_rank",
    "load_split",
    "low_rank_approximation",
    "measure_latency",
    "measure_speed",
    "rank_for_energy",
    "relative_error",
    "set_seed",
    "singular_values",
    "size_bytes",
    "train_nets",
    "train_nn",
    "truncated_svd",
    "weighted_factors",
]
