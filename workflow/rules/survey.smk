rule survey:
    input:
        PLAN.cell_outputs(),
        PLAN.priors,
        PLAN.answers(),
    output:
        report(
            directory(f"{OUT}/survey"),
            patterns=["figures/{name}.png"],
            category="Figures",
            caption="../report/figures.rst",
        ),
    params:
        depends=PLAN.survey(),
    resources:
        **PLAN.resources("survey"),
    message:
        "survey: tables, figures, report"
    log:
        f"{OUT}/logs/survey.log",
    shell:
        "{RUN} survey > {log:q} 2>&1"
