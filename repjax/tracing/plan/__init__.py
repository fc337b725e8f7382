"""Third chapter: which linear values are computed together, and the program that results."""
