"""How messages name the state of a job."""

from stoker.status import TERMINAL


def stands(state: str) -> str:
    """`The job succeeded`, `The job was cancelled`, `The job is paused`: the beginning of a sentence."""
    if state == "cancelled":
        return "The job was cancelled"
    return f"The job {state}" if state in TERMINAL else f"The job is {state}"
