# An attack sees the public part of the data, what the target released, and priors. Private data, truth and
# evaluators are inputs of the evaluation only.


rule attack:
    input:
        lambda w: PLAN.attack_inputs(f"{w.scenario}/{w.attack}/{w.defense}"),
    output:
        directory(f"{OUT}/reconstructions/{{scenario}}/{{attack}}/{{defense}}"),
    params:
        depends=lambda w: PLAN.attack(f"{w.scenario}/{w.attack}/{w.defense}"),
    resources:
        **PLAN.resources("attack"),
    message:
        "attack {wildcards.scenario}/{wildcards.attack}/{wildcards.defense}"
    log:
        f"{OUT}/logs/attack/{{scenario}}/{{attack}}/{{defense}}.log",
    shell:
        "{RUN} attack {wildcards.scenario:q}/{wildcards.attack:q}/{wildcards.defense:q} > {log:q} 2>&1"


# One job for all defenses of an attack: starting a process costs more than comparing images.
rule evaluate:
    input:
        lambda w: PLAN.evaluate_inputs(f"{w.scenario}/{w.attack}"),
    output:
        directory(f"{OUT}/cells/{{scenario}}/{{attack}}"),
    params:
        depends=lambda w: PLAN.evaluate(f"{w.scenario}/{w.attack}"),
    resources:
        **PLAN.resources("evaluate"),
    message:
        "evaluate {wildcards.scenario}/{wildcards.attack}"
    log:
        f"{OUT}/logs/evaluate/{{scenario}}/{{attack}}.log",
    shell:
        "{RUN} evaluate {wildcards.scenario:q}/{wildcards.attack:q} > {log:q} 2>&1"
