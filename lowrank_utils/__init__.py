"""Low-rank compression of neural networks: factors, ranks, layers, whole models, and what they cost."""

from lowrank_utils.cost.activations import activation_bytes
from lowrank_utils.cost.by_layer import LayerCost, LayerTable, cost_by_layer
from lowrank_utils.cost.counters import flopth_counts
from lowrank_utils.cost.latency import measure_latency
from lowrank_utils.cost.machine import Machine
from lowrank_utils.cost.macs import count_macs
from lowrank_utils.cost.predict import Prediction, predict_speedup
from lowrank_utils.cost.size import count_params, size_bytes
from lowrank_utils.cost.speed import Speed, measure_speed
from lowrank_utils.cost.survey import Survey, SurveyRow, survey
from lowrank_utils.cost.table import Cost, CostTable, cost_table
from lowrank_utils.explorers.budget import BudgetExplorer
from lowrank_utils.explorers.kernel import KernelExplorer
from lowrank_utils.explorers.rank import RankExplorer
from lowrank_utils.factors.moments import Moments
from lowrank_utils.factors.ranks import break_even_rank, rank_for_energy
from lowrank_utils.factors.spectral_rules import evbmf_rank, gavish_donoho_rank
from lowrank_utils.factors.svd import low_rank_approximation, relative_error, singular_values, truncated_svd
from lowrank_utils.factors.weighted import WeightedFactors, weighted_factors
from lowrank_utils.lab.data import Split, load_split
from lowrank_utils.lab.docstrings import Docstring, load_docstrings
from lowrank_utils.lab.long_run import long_run
from lowrank_utils.lab.minilm import MiniLM, load_minilm, minilm_tokens, without_layers
from lowrank_utils.lab.models import Net, NetLite
from lowrank_utils.lab.repro import set_seed
from lowrank_utils.lab.stacked import train_nets
from lowrank_utils.lab.training import train_nn
from lowrank_utils.layers.attention import unpack_attention
from lowrank_utils.layers.conv import LowRankConv
from lowrank_utils.layers.conv_options import ConvOption, ConvOptions, conv_options
from lowrank_utils.layers.linear import LowRankLinear
from lowrank_utils.layers.lora import LoRALinear
from lowrank_utils.layers.pivoted import PivotedLinear
from lowrank_utils.layers.unpacked import UnpackedAttention
from lowrank_utils.layers.views import LayerView, layer_view
from lowrank_utils.model.batches import Batch
from lowrank_utils.model.metrics import accuracy, auc
from lowrank_utils.network.adapt import adapt
from lowrank_utils.network.allocate import allocate_ranks
from lowrank_utils.network.calibrate import calibrate
from lowrank_utils.network.cascade import cascade
from lowrank_utils.network.compress import compress
from lowrank_utils.network.exported import from_exported
from lowrank_utils.network.folding import fold_permutations
from lowrank_utils.network.harm import Harm, HarmCurve, LayerHarm
from lowrank_utils.network.measure import measure_harm
from lowrank_utils.network.norms import recalibrate_norms
from lowrank_utils.network.plain import to_plain
from lowrank_utils.network.report import LayerReport, Report
from lowrank_utils.network.residual import residual_connections
from lowrank_utils.network.within import compress_within
from lowrank_utils.search.find_rank import RankSearch, find_rank
from lowrank_utils.search.optimize_rank import OptimizeRank
from lowrank_utils.search.sweep import Sweep, sweep

__all__ = [
    "Batch",
    "BudgetExplorer",
    "ConvOption",
    "ConvOptions",
    "Cost",
    "CostTable",
    "Docstring",
    "Harm",
    "HarmCurve",
    "KernelExplorer",
    "LayerCost",
    "LayerHarm",
    "LayerReport",
    "LayerTable",
    "LayerView",
    "LoRALinear",
    "LowRankConv",
    "LowRankLinear",
    "Machine",
    "MiniLM",
    "Moments",
    "Net",
    "NetLite",
    "OptimizeRank",
    "PivotedLinear",
    "Prediction",
    "RankExplorer",
    "RankSearch",
    "Report",
    "Speed",
    "Split",
    "Survey",
    "SurveyRow",
    "Sweep",
    "UnpackedAttention",
    "WeightedFactors",
    "accuracy",
    "activation_bytes",
    "adapt",
    "allocate_ranks",
    "auc",
    "break_even_rank",
    "calibrate",
    "cascade",
    "compress",
    "compress_within",
    "conv_options",
    "cost_by_layer",
    "cost_table",
    "count_macs",
    "count_params",
    "evbmf_rank",
    "find_rank",
    "flopth_counts",
    "fold_permutations",
    "from_exported",
    "gavish_donoho_rank",
    "layer_view",
    "load_docstrings",
    "load_minilm",
    "load_split",
    "long_run",
    "low_rank_approximation",
    "measure_harm",
    "measure_latency",
    "measure_speed",
    "minilm_tokens",
    "predict_speedup",
    "rank_for_energy",
    "recalibrate_norms",
    "relative_error",
    "residual_connections",
    "set_seed",
    "singular_values",
    "size_bytes",
    "survey",
    "sweep",
    "to_plain",
    "train_nets",
    "train_nn",
    "truncated_svd",
    "unpack_attention",
    "weighted_factors",
    "without_layers",
]
