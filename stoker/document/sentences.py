"""Every English sentence that a user may read from the spec package: what a translation must hold, no more and no less."""

from stoker.document.describe import WORDS
from stoker.document.explain import ROOT_TEXT, UNKNOWN_PATH
from stoker.document.grammar import walk
from stoker.document.messages import GRAMMAR, REASONS, TEXT_CODES
from stoker.spec.job import JobSpec
from stoker.spec.rules import RULES


def every_sentence() -> frozenset[str]:
    """Field sentences, units, rules, grammar errors, and the words they are made of."""
    fields = list(walk(JobSpec))
    found = {step.field.doc for step in fields}
    found |= {word for step in fields for word in (step.field.knob.unit, *step.field.knob.affects)}
    found |= {text for rule in RULES for text in (rule.message, rule.hint)}
    found |= {text for message in GRAMMAR.values() for text in (message.text, message.hint) if text}
    found |= {ROOT_TEXT, *UNKNOWN_PATH, *WORDS, *TEXT_CODES.values(), *REASONS.values()}
    return frozenset(found - {""})
