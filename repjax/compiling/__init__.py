"""`compile`, `compiler_options` and `shift_depthwise`: what makes jitted convolutions fast."""
