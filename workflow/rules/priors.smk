rule train_prior:
    input:
        lambda w: PLAN.data(w.dataset, "public"),
    output:
        directory(f"{OUT}/priors/{{dataset}}/{{prior}}"),
    params:
        depends=lambda w: PLAN.train_prior(w.prior),
    priority: 20  # everything of the classifier track waits for it
    log:
        f"{OUT}/logs/train_prior/{{dataset}}/{{prior}}.log",
    shell:
        "{RUN} train-prior {wildcards.dataset} {wildcards.prior} > {log} 2>&1"
