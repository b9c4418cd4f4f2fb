# Looking at the numbers in MLflow must never fail or delay them: the command reports what went wrong and
# ends well.


rule sync:
    input:
        PLAN.cell_outputs(),
    output:
        f"{OUT}/tracking.json",
    params:
        uri=PLAN.params.tracking_uri,
    resources:
        **PLAN.resources("sync"),
    message:
        "records to MLflow"
    log:
        f"{OUT}/logs/sync.log",
    shell:
        "{RUN} sync --out {output:q} > {log:q} 2>&1"
