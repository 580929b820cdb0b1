"""Reports on any number of runs, as tables and as a page: ``python -m squad_lit.report RUNS``."""
