"""Rules: which operations are linear, and what they make of the forms of their operands.

What has no rule stays as it is. A new rule is two functions in one of these files, one line
in its `RULES`, and a row in `repjax.primitives` if the primitive has none yet.
"""

from repjax.tracing.linear.rules import channels, elementwise, kernels, moves, rearrangements
from repjax.tracing.linear.rules.rule import Rule

RULES: dict[str, Rule] = {
    **kernels.RULES,
    **elementwise.RULES,
    **moves.RULES,
    **channels.RULES,
    **rearrangements.RULES,
}

__all__ = ["RULES", "Rule"]
