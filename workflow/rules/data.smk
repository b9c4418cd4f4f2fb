rule prepare:
    input:
        lambda w: PLAN.prepare_inputs(w.dataset),
    output:
        f"{OUT}/data/{{dataset}}/dataset.json",
        directory(f"{OUT}/data/{{dataset}}/private"),
        directory(f"{OUT}/data/{{dataset}}/public"),
        directory(f"{OUT}/data/{{dataset}}/evaluation"),
        directory(f"{OUT}/data/{{dataset}}/heldout"),
    params:
        depends=lambda w: PLAN.prepare(w.dataset),
    resources:
        **PLAN.resources("prepare"),
    message:
        "prepare {wildcards.dataset}"
    log:
        f"{OUT}/logs/prepare/{{dataset}}.log",
    shell:
        "{RUN} prepare {wildcards.dataset:q} > {log:q} 2>&1"
