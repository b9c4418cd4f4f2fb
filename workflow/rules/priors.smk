rule train_prior:
    input:
        lambda w: PLAN.data(w.dataset, "public"),
    output:
        directory(f"{OUT}/priors/{{dataset}}/{{prior}}"),
    params:
        depends=lambda w: PLAN.train_prior(w.prior),
    priority: 20  # everything of the classifier track waits for it
    resources:
        **PLAN.resources("train_prior"),
    message:
        "train prior {wildcards.dataset}/{wildcards.prior}"
    log:
        f"{OUT}/logs/train_prior/{{dataset}}/{{prior}}.log",
    shell:
        "{RUN} train-prior {wildcards.dataset:q} {wildcards.prior:q} > {log:q} 2>&1"


# A prior that asks the target what it sees in public images is trained again for every target.
rule train_target_prior:
    input:
        lambda w: PLAN.target_prior_inputs(w.scenario, w.defense, w.strength, w.prior),
    output:
        directory(f"{OUT}/priors/targets/{{scenario}}/{{defense}}/{{strength}}/{{prior}}"),
    params:
        depends=lambda w: PLAN.train_target_prior(w.scenario, w.defense, w.prior),
    priority: 15
    resources:
        **PLAN.resources("train_target_prior"),
    message:
        "train prior {wildcards.prior} of {wildcards.scenario}/{wildcards.defense}/{wildcards.strength}"
    log:
        f"{OUT}/logs/train_prior/{{scenario}}/{{defense}}/{{strength}}/{{prior}}.log",
    shell:
        "{RUN} train-target-prior {wildcards.scenario:q} {wildcards.defense:q} {wildcards.strength:q}"
        " {wildcards.prior:q} > {log:q} 2>&1"
