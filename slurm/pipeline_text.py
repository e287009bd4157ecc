"""What `hvc submit pipeline` did, for the terminal."""

import yaml

from hvc.slurm.pipeline_submit import PipelineReport


def report_lines(report: PipelineReport) -> list[str]:
    """A line per task, then what to know; of a dry run also the scripts and configs."""
    lines = []
    for script, configs in zip(report.scripts, report.configs, strict=True):
        lines += [script, "# Its config, or one for each task:"]
        text = yaml.safe_dump_all(configs, sort_keys=False)
        lines += [f"#   {line}" for line in text.splitlines()]
    width = max(len(row["key"]) for row in report.tasks)
    for row in report.tasks:
        job = f"job {row['job_id']}" if row["job_id"] else ""
        after = f"after {row['after']}" if row["after"] else ""
        where = row["output"] if row["state"] == "done" else ""
        words = [f"{row['key']:{width}}", f"{row['state']:9}", job, after, where]
        lines.append("  ".join(word for word in words if word))
    lines += [f"{check.status}: {check.name}: {check.found}. {check.advice}" for check in report.findings]
    lines += report.remarks
    if any(row["state"] in ("submitted", "under way") for row in report.tasks):
        lines.append(f"`hvc jobs` shows how far it is; {report.folder}/report.txt will be its report")
    return lines
