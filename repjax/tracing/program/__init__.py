"""First chapter: a program read as operations on data, with weights on the side."""
