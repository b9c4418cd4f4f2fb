"""Defenses that bound what an output says about a record or a client, by noise with a proven guarantee."""
