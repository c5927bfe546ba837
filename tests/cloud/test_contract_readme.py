"""infra/README.md against what it describes: stacks, secrets, parameters, files and commands."""

import re
import tomllib

import pytest
import templates
from contract.shipped import PLACES, Shipped

TEXT = (templates.INFRA / "README.md").read_text()


def test_the_table_of_stacks_has_all_of_them_where_they_stand() -> None:
    rows = dict(re.findall(r"^\| `datahub-(\w+)` \|[^|]*\| ([\w-]+)[^|]* \|", TEXT, re.M))
    where = {}
    for stack in templates.names():
        regions = {region for _, region, stacks in PLACES if stack in stacks}
        where[stack] = "both" if len(regions) == 2 else regions.pop()
    assert rows == where


def test_the_table_of_secrets_has_all_that_are_rotated_or_changed(shipped: Shipped) -> None:
    rows = set(re.findall(r"^\| `(datahub/[\w-]+)` \|", TEXT, re.M))
    made = {one["Name"] for one in shipped.production.resources("AWS::SecretsManager::Secret").values()}
    # The URLs are composed of the others.
    assert rows == {name for name in made if not name.endswith("-url")}


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)", TEXT))))
def test_a_link_leads_to_a_file(target: str) -> None:
    assert (templates.INFRA / target).exists()


@pytest.mark.parametrize("script", sorted(set(re.findall(r"\binfra/([a-z]+)\b(?!\.)", TEXT))))
def test_a_command_that_is_named_is_there(script: str) -> None:
    path = templates.INFRA / script
    assert path.is_dir() or path.stat().st_mode & 0o111


@pytest.mark.parametrize(
    "name",
    ["DomainName", "PageEndpoint", "NotifyEndpoint", "Repository", "Upstream1", "Upstream6", "NatGateways"]
    + ["CloudFront", "CachedPath", "OperatorSecurityGroup", "CacheClass", "CountSetBy"],
)
def test_a_parameter_that_is_named_is_one(name: str) -> None:
    assert f"`{name}" in TEXT
    assert any(name in templates.load(stack).get("Parameters", {}) for stack in templates.names())


def test_the_plan_of_the_smoke_allows_what_the_smoke_load_asks() -> None:
    plan = re.search(r'"username":"smoke","plan":"(\w+)"', TEXT)
    assert plan is not None
    for folder in ("production", "staging"):
        plans = tomllib.loads((templates.ROOT / "conf/environments" / folder / "plans.toml").read_text())["plans"]
        rates = [limit["rate"] for limit in plans[plan[1]]["limits"].values() if "rate" in limit]
        assert rates and all(rate.endswith("/s") and int(rate.split("/")[0]) >= 20 for rate in rates), folder


COMMANDS = re.findall(r"infra/(release|failover|smoke|deploy) ([^`\n]*)", "\n".join(
    path.read_text() for path in sorted(templates.INFRA.glob("*.md"))
))


@pytest.mark.parametrize(("script", "words"), COMMANDS)
def test_a_command_that_is_shown_has_options_that_the_script_knows(script: str, words: str) -> None:
    known = (templates.INFRA / script).read_text()
    # `migrate --dry-run` is the gateway's.
    for option in re.findall(r"(?<![\w-])--[a-z-]+", words.split("migrate --")[0]):
        assert f"{option})" in known or f" {option} |" in known or f"{option} |" in known, option


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len(TEXT.splitlines()) <= 300


def test_sums_are_those_of_the_capacity_page() -> None:
    capacity = (templates.INFRA / "CAPACITY.md").read_text()
    total = re.search(r"\*\*Cost: total\*\*.*\| (\$[\d ]+) as drawn, (\$\d+) with small nodes", TEXT)
    assert total is not None
    assert total[1] in capacity and total[2] in capacity
