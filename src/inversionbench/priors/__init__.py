"""Priors: generative models of public data; one file each, named by its id."""
