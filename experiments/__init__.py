"""Short scripts on top of repjax: quickstart, compare, planning, figures and tables."""
