"""Short scripts on top of repjax: quickstart, compare, planning and tables."""
