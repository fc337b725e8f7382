"""Second chapter: what is linear, and how linear values follow from others as affine forms."""
