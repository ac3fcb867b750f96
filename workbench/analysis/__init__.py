"""DataFrame in, DataFrame out: fits, ratios, thresholds, comparison. No plotting, no files."""

from workbench.analysis.compare import compare, environment_differences
from workbench.analysis.fits import Fit, fit_curve
from workbench.analysis.headline import Samples, headline
from workbench.analysis.host_bound import (
    depends_on_time,
    host_bound,
    without_host_bound,
)
from workbench.analysis.scaling import fit, limits
from workbench.analysis.series import (
    CONDITIONS,
    SUBJECT,
    Kinds,
    attention_name,
    group_codes,
    kinds,
    series_label,
    series_name,
    systems_of,
)

__all__ = [
    "CONDITIONS",
    "SUBJECT",
    "Fit",
    "Kinds",
    "Samples",
    "attention_name",
    "compare",
    "depends_on_time",
    "environment_differences",
    "fit",
    "fit_curve",
    "group_codes",
    "headline",
    "host_bound",
    "kinds",
    "limits",
    "series_label",
    "series_name",
    "systems_of",
    "without_host_bound",
]
