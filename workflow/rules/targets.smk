rule train_target:
    input:
        lambda w: PLAN.data(PLAN.dataset_of(w.scenario), "private", "public", "evaluation", "heldout"),
    output:
        released=directory(f"{OUT}/targets/{{scenario}}/{{defense}}/{{strength}}/released"),
        truth=directory(f"{OUT}/targets/{{scenario}}/{{defense}}/{{strength}}/truth"),
    params:
        depends=lambda w: PLAN.train_target(w.scenario, w.defense),
    resources:
        **PLAN.resources("train_target"),
    message:
        "train target {wildcards.scenario}/{wildcards.defense}/{wildcards.strength}"
    log:
        f"{OUT}/logs/train_target/{{scenario}}/{{defense}}/{{strength}}.log",
    shell:
        "{RUN} train-target {wildcards.scenario:q} {wildcards.defense:q} {wildcards.strength:q} > {log:q} 2>&1"


rule train_evaluator:
    input:
        lambda w: PLAN.data(
            PLAN.params.evaluators[w.judge]["dataset"], "private", "public", "evaluation", "heldout"
        ),
    output:
        directory(f"{OUT}/evaluators/{{judge}}"),
    params:
        depends=lambda w: PLAN.train_evaluator(w.judge),
    priority: 10  # the longest jobs start first
    resources:
        **PLAN.resources("train_evaluator"),
    message:
        "train evaluators {wildcards.judge}"
    log:
        f"{OUT}/logs/train_evaluator/{{judge}}.log",
    shell:
        "{RUN} train-evaluator {wildcards.judge:q} > {log:q} 2>&1"
