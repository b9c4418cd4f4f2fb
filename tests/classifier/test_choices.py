"""Choices by name are refused with the allowed names, before anything is trained or imported."""

from __future__ import annotations

from typing import get_args

import pytest

from inversionbench.core import registry
from inversionbench.core.attack import Identity
from inversionbench.core.errors import UserError
from inversionbench.latent.losses import IDENTITY

CHOICES = [
    ("attack", "gmi", "identity"), ("attack", "gmi", "select"), ("attack", "ppa", "identity"),
    ("attack", "ppa", "select"), ("attack", "if_gmi", "identity"), ("attack", "plg_mi", "identity"),
    ("attack", "lomma", "base"), ("attack", "lomma", "identity"), ("attack", "kedmi", "latent"),
    ("attack", "kedmi", "answer"), ("attack", "vmi", "family"), ("attack", "vmi", "optimiser"),
    ("attack", "fedinverse", "base"), ("attack", "mi_face", "start"), ("attack", "mirror", "access"),
    ("attack", "dmmia", "imr_sign"), ("attack", "deepinversion", "schedule"), ("attack", "secretgen", "label"),
    ("attack", "secretgen", "initial"), ("attack", "patch_mi", "base"), ("attack", "random_prior", "base"),
    ("attack", "random_search", "base"), ("attack", "lsmi", "identity"), ("prior", "dcgan", "loss"),
    ("prior", "dcgan", "upsample"), ("prior", "style", "loss"), ("prior", "completion", "loss"),
    ("prior", "completion_target", "loss"), ("prior", "kedmi_gan", "critic"), ("prior", "kedmi_gan", "labels"),
    ("prior", "plg_gan", "form"),
]


@pytest.mark.parametrize(("kind", "method", "field"), CHOICES)
def test_a_wrong_name_is_refused_and_the_default_is_not(kind, method, field):
    described = registry.describe(kind, method)
    with pytest.raises(UserError, match=rf"here\.{field}: got 'nobody'"):
        registry.check_parameters(described, {field: "nobody"}, "here")
    registry.check_parameters(described, {field: described.fields[field]}, "here")


def test_every_loss_can_be_named():
    assert set(get_args(Identity)) == set(IDENTITY)


def test_bases_are_the_priors_that_an_attack_can_have():
    for method in registry.methods("attack").values():
        if method.group == "classifier" and isinstance(method.attributes.get("prior"), dict):
            for base in method.attributes["prior"]:
                registry.check_parameters(method, {"base": base}, "here")
