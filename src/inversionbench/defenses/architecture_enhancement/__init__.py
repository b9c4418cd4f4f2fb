"""Defenses that change the network so that its gradients say less about its input."""
