# Entry of the workflow: what to run comes from params.yaml (and a scale's overlay), what each rule needs
# from inversionbench.plan. No rule knows a method; no method knows a rule.
configfile: "params.yaml"


import os
import shlex
import subprocess
import sys

from inversionbench.core.errors import UserError
from inversionbench.plan.dag import Plan
from snakemake.exceptions import WorkflowError

try:
    PLAN = Plan(config)
    PLAN.try_out()
except UserError as error:
    raise WorkflowError(str(error))
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # container images set it; then every job would compile PyTorch again
OUT = PLAN.folder
RUN = f"{shlex.quote(sys.executable)} -m inversionbench --params {shlex.quote(str(PLAN.file))}"


wildcard_constraints:
    dataset="[^/]+",
    scenario="[^/]+",
    attack="[^/]+",
    defense="[^/]+",
    strength="[^/]+",
    prior="[^/]+",
    judge="[^/]+",


rule all:
    default_target: True
    input:
        PLAN.outputs(),
        f"{OUT}/tracking.json",
    message:
        "all: done"


rule data:
    input:
        PLAN.data_outputs(),


rule models:
    input:
        PLAN.model_outputs(),


rule cells:
    input:
        PLAN.cell_outputs(),


include: "workflow/rules/data.smk"
include: "workflow/rules/targets.smk"
include: "workflow/rules/priors.smk"
include: "workflow/rules/attacks.smk"
include: "workflow/rules/survey.smk"
include: "workflow/rules/tracking.smk"


def close(*options):
    """Say where the results are. A run with failures ends with their reasons, and with an error."""
    summary = [sys.executable, "-m", "inversionbench", "--params", str(PLAN.file), "summary", *options]
    told = subprocess.run(summary, stdout=subprocess.PIPE, text=True)
    if told.returncode:
        again = shlex.join(["snakemake", *sys.argv[1:]])
        raise WorkflowError(f"{told.stdout}\nThis goes on, with what failed and what waits for it: {again}")
    print(told.stdout, end="")


onstart:
    try:
        PLAN.prepare_run()
    except UserError as error:
        raise WorkflowError(str(error))


onsuccess:
    close()


onerror:
    close("--failed")
