"""DataFrame in, DataFrame out: fits, ratios, thresholds, comparison. No plotting, no files."""

from workbench.analysis.compare import compare, environment_differences
from workbench.analysis.fits import Fit, fit_curve
from workbench.analysis.growth import growth
from workbench.analysis.headline import Samples, headline
from workbench.analysis.host_bound import (
    depends_on_time,
    host_bound,
    without_host_bound,
)
from workbench.analysis.marks import beside_emulation, emulation, legend, letters, marks, together
from workbench.analysis.scaling import fit, limits
from workbench.analysis.series import (
    CONDITIONS,
    SUBJECT,
    Kinds,
    attention_name,
    common_options,
    group_codes,
    kinds,
    series_label,
    series_name,
    short_names,
    systems_of,
)

__all__ = [
    "CONDITIONS",
    "SUBJECT",
    "Fit",
    "Kinds",
    "Samples",
    "attention_name",
    "beside_emulation",
    "common_options",
    "compare",
    "depends_on_time",
    "emulation",
    "environment_differences",
    "fit",
    "fit_curve",
    "group_codes",
    "growth",
    "headline",
    "host_bound",
    "kinds",
    "legend",
    "letters",
    "limits",
    "marks",
    "series_label",
    "series_name",
    "short_names",
    "systems_of",
    "together",
    "without_host_bound",
]
