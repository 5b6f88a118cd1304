"""What a run will need, predicted from its spec by arithmetic: parameters, FLOPs, steps, memory, checkpoint bytes."""

from stoker.plan.limits import Limits
from stoker.plan.needs import Needs, needs
from stoker.plan.predict import plan, plan_without_text, with_text
from stoker.plan.prediction import Plan

__all__ = ["Limits", "Needs", "Plan", "needs", "plan", "plan_without_text", "with_text"]
