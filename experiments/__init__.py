"""Short scripts on top of repjax: quickstart, compare, planning, figures and tables."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # a line for each compile otherwise
