"""Every command with the place of its function and its one line of help. Help needs no more than this table."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A command that is imported when it is called."""

    target: str
    """`module:function`, or `module:app` of a group."""
    help: str
    panel: str


WRITE, RUN, SEE, GET, ADMIN = "Write a job", "Run it", "Look at it", "Get results", "Run Stoker"

COMMANDS: dict[str, Entry] = {
    "init": Entry("stoker.cli.init:init", "Write a job file to start from.", WRITE),
    "validate": Entry("stoker.cli.validate:validate", "Check a job file and show every mistake at once.", WRITE),
    "explain": Entry("stoker.cli.explain:explain", "Say what a key of the job file means.", WRITE),
    "plan": Entry("stoker.cli.plan:plan", "Predict parameters, memory, steps and sizes without running anything.", WRITE),
    "schema": Entry("stoker.cli.schema:schema", "Print the JSON Schema of a job file.", WRITE),
    "submit": Entry("stoker.cli.submit:submit", "Submit a job file.", RUN),
    "cancel": Entry("stoker.cli.act:cancel", "Ask jobs to stop for good.", RUN),
    "pause": Entry("stoker.cli.act:pause", "Ask jobs to save and release their devices.", RUN),
    "resume": Entry("stoker.cli.act:resume", "Continue paused jobs.", RUN),
    "retry": Entry("stoker.cli.act:retry", "Run failed or cancelled jobs again from their last checkpoint.", RUN),
    "archive": Entry("stoker.cli.act:archive", "Take ended jobs off the list.", RUN),
    "ls": Entry("stoker.cli.ls:ls", "List jobs, newest first.", SEE),
    "show": Entry("stoker.cli.show:show", "Show one job.", SEE),
    "watch": Entry("stoker.cli.watch:watch", "Follow a job until it ends.", SEE),
    "wait": Entry("stoker.cli.wait:wait", "Wait until jobs have ended; the exit code says how.", SEE),
    "why": Entry("stoker.cli.why:why", "Say why a job waits.", SEE),
    "logs": Entry("stoker.cli.logs:logs", "Print what a job wrote.", SEE),
    "metrics": Entry("stoker.cli.metrics:metrics", "Print a job's metrics.", SEE),
    "checkpoints": Entry("stoker.cli.checkpoints:checkpoints", "List a job's checkpoints.", GET),
    "download": Entry("stoker.cli.download:download", "Download and verify a checkpoint or an artifact.", GET),
    "datasets": Entry("stoker.cli.datasets:app", "Upload, list and download data sets.", GET),
    "workers": Entry("stoker.cli.workers:app", "List, drain and resume workers.", ADMIN),
    "keys": Entry("stoker.cli.keys:app", "Create, list and revoke API keys.", ADMIN),
    "up": Entry("stoker.cli.up:up", "Run server, broker and worker on this machine.", ADMIN),
    "server": Entry("stoker.cli.serve:server_app", "Run the server alone, in this process.", ADMIN),
    "worker": Entry("stoker.cli.serve:worker_app", "Run a worker alone, in this process.", ADMIN),
    "demo": Entry("stoker.cli.demo:demo", "Train a classifier and a small GPT through the whole system.", ADMIN),
    "doctor": Entry("stoker.cli.doctor:doctor", "Check this machine and its connection to the server.", ADMIN),
    "completion": Entry("stoker.cli.completion:completion", "Print the completion script of a shell.", ADMIN),
}
