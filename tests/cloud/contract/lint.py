"""cfn-lint, in this process: a template that was seen before costs nothing."""

import json
from collections.abc import Iterator
from functools import cache

from cfnlint.api import lint as cfn_lint
from cfnlint.config import ManualArgs

from contract.rule import rule
from contract.shipped import PLACES, Shipped


@rule
def cfn_lint_has_no_findings(shipped: Shipped) -> Iterator[str]:
    """Every template, against the schemas of the regions that it is deployed to."""
    for name, template in shipped.templates.items():
        regions = tuple(sorted({region for _, region, stacks in PLACES if name in stacks}))
        for finding in _lint(json.dumps(template), regions):
            yield f"{name}: {finding}"


@cache
def _lint(text: str, regions: tuple[str, ...]) -> list[str]:
    config = ManualArgs(regions=list(regions or ("us-east-1",)))
    return [
        f"{'/'.join(map(str, match.path or ()))}: {match.rule.id} {match.message}"
        for match in cfn_lint(text, config=config)
    ]
