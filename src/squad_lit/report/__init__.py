"""Any number of runs as tables and one page: ``python -m squad_lit.report RUNS``."""
