"""How the stacks fit together: parameters, exports and imports, and the order in which they are made."""

import re
from collections import Counter
from collections.abc import Iterator

import templates
from contract.resolve import Stack
from contract.rule import rule
from contract.shipped import EVERYTHING, PLACES, Place, Shipped

# Exports that no stack imports: who reads them.
READ_BY_PEOPLE = {
    "RepositoryUri": "the delivery workflow pushes the image there",
    "RepositoryArn": "the registry as the recovery region's pull permission names it",
    "DeployRoleArn": "goes into the GitHub environment as the role to assume",
    "MigrationTaskDefinition": "the delivery workflow runs it before it updates the service",
    "LoadBalancerDns": "what to look at before the zone is delegated",
    "VpcCidr": "for stacks of upstreams, which let tasks in by it",
    "DatabaseAddress": "for those who look into the database by hand",
    "DatabasePort": "as the address",
    "DatabaseSecret": "its replica is read in the recovery region, where no import reaches",
    "BackupBucket": "for those who put exports and dumps there",
    "PageTopic": "for subscriptions that are made outside of the templates",
    "NotifyTopic": "for subscriptions that are made outside of the templates",
}


@rule
def templates_are_plain(shipped: Shipped) -> Iterator[str]:
    """No macro, no transform and no nested stack: what is checked is what is deployed."""
    for name, template in shipped.templates.items():
        if "Transform" in template:
            yield f"{name}: has a Transform"
        for path, value in templates.walk(template):
            if path and path[-1] in ("Fn::Transform", "Fn::ForEach"):
                yield f"{name}: {path[-1]} at {'/'.join(map(str, path))}"
            if isinstance(value, dict) and value.get("Type") in (
                "AWS::CloudFormation::Macro",
                "AWS::CloudFormation::Stack",
            ):
                yield f"{name}: {path[-1]} is a {value['Type']}"


@rule
def every_template_is_deployed_somewhere(shipped: Shipped) -> Iterator[str]:
    """The order of `PLACES` names every template, and only templates that exist."""
    named = {stack for _, _, stacks in PLACES for stack in stacks}
    for name in sorted(named ^ set(shipped.templates)):
        yield f"{name}: {'no such template' if name in named else 'in no place of the deploy order'}"


@rule
def every_stack_knows_its_environment(shipped: Shipped) -> Iterator[str]:
    """The one parameter that all have."""
    for name, template in shipped.templates.items():
        wanted = sorted({environment for environment, _, stacks in PLACES if name in stacks})
        parameter = template.get("Parameters", {}).get("Environment", {})
        if sorted(parameter.get("AllowedValues", [])) != wanted:
            yield f"{name}: parameter Environment does not allow exactly {wanted}"


@rule
def parameter_files_fit_their_templates(shipped: Shipped) -> Iterator[str]:
    """Names that exist, values that are allowed, and nothing required left out."""
    taken = set()
    for environment, region, names in PLACES:
        for name in names:
            key = f"{environment}/{name}" if region == "us-east-1" else f"{environment}/{region}/{name}"
            taken.add(key)
            if name not in shipped.templates:
                continue
            declared = shipped.templates[name].get("Parameters", {})
            given = shipped.given(environment, region, name)
            for parameter, value in given.items():
                if parameter not in declared:
                    yield f"{key}: {name}.yaml has no parameter {parameter}"
                elif trouble := _unfit(declared[parameter], value):
                    yield f"{key}: {parameter}: {trouble}"
            for parameter, declaration in declared.items():
                if "Default" not in declaration and parameter not in given and parameter not in BY_DEPLOY:
                    yield f"{key}: {parameter} has no default and is not given"
    for key, content in shipped.parameters.items():
        if key not in taken:
            yield f"infra/parameters/{key}.json: no stack takes this file"
        if set(content) != {"Parameters"}:
            yield f"infra/parameters/{key}.json: wants exactly the key Parameters"


# Given by `infra/deploy` and not by a file: what it deploys, and whereto.
BY_DEPLOY = {"Environment", "Image", "MigrationImage"}


def _unfit(declaration: dict, value: object) -> str | None:
    """Why a value is not one for this parameter."""
    if not isinstance(value, str):
        return f"{value!r} is not a string"
    parts = value.split(",") if declaration["Type"].startswith(("List<", "Comma")) else [value]
    for part in parts:
        allowed = [str(one) for one in declaration.get("AllowedValues", [])]
        if allowed and part not in allowed:
            return f"`{part}` is not one of {allowed}"
        if "AllowedPattern" in declaration and not re.fullmatch(declaration["AllowedPattern"], part):
            return f"`{part}` does not match {declaration['AllowedPattern']}"
        if declaration["Type"] in ("Number", "List<Number>"):
            if not re.fullmatch(r"-?\d+(\.\d+)?", part):
                return f"`{part}` is not a number"
            low, high = declaration.get("MinValue", "-inf"), declaration.get("MaxValue", "inf")
            if not float(low) <= float(part) <= float(high):
                return f"`{part}` is not between {low} and {high}"
        if len(part) < int(declaration.get("MinLength", 0)):
            return f"`{part}` is too short"
    return None


@rule
def every_default_is_allowed(shipped: Shipped) -> Iterator[str]:
    """A default that its own pattern refuses fails the first deployment."""
    for name, template in shipped.templates.items():
        for parameter, declaration in template.get("Parameters", {}).items():
            if "Default" in declaration and (trouble := _unfit(declaration, str(declaration["Default"]))):
                yield f"{name}: default of {parameter}: {trouble}"


@rule
def every_parameter_is_used(shipped: Shipped) -> Iterator[str]:
    """One that nobody reads promises what does not happen."""
    for name, template in shipped.templates.items():
        text = []
        for _, value in templates.walk({key: template[key] for key in template if key != "Parameters"}):
            if isinstance(value, dict) and isinstance(value.get("Ref"), str):
                text.append(value["Ref"])
            elif isinstance(value, str):
                text.extend(re.findall(r"\$\{\s*([A-Za-z0-9]+)\s*\}", value))
        for parameter in template.get("Parameters", {}):
            if parameter not in text:
                yield f"{name}: parameter {parameter} is not used"


@rule
def every_import_is_exported_before(shipped: Shipped) -> Iterator[str]:
    """By a stack that was made earlier in the same account and region."""
    for place in shipped.places:
        for name, stack in place.stacks.items():
            for wanted in sorted(set(stack.imports)):
                if wanted not in _exported_before(place, name):
                    yield f"{place}: {name} imports {wanted}, which no stack before it exports"


def _exported_before(place: Place, name: str) -> set[str]:
    found: set[str] = set()
    for before, stack in place.stacks.items():
        if before == name:
            break
        found |= set(stack.exports)
    return found


@rule
def exports_are_named_after_their_outputs_and_unique(shipped: Shipped) -> Iterator[str]:
    """`datahub-<Output>`: recovery exports under data's names, so that service.yaml runs on either."""
    for place in shipped.places:
        names = Counter(export for stack in place.stacks.values() for export in stack.exports)
        for name in sorted(name for name, times in names.items() if times > 1):
            yield f"{place}: {name} is exported {names[name]} times"
    for name, template in shipped.templates.items():
        for output, content in template.get("Outputs", {}).items():
            if "Export" in content and content["Export"]["Name"] != f"datahub-{output}":
                yield f"{name}: output {output} is exported as {content['Export']['Name']}"


@rule
def every_export_is_read(shipped: Shipped) -> Iterator[str]:
    """By another stack, or by someone whom `READ_BY_PEOPLE` names."""
    read = {name for place in shipped.places for stack in place.stacks.values() for name in stack.imports}
    exported = {
        name for place in shipped.places for stack in place.stacks.values() for name in stack.exports
    }
    for name in sorted(exported - read - {f"datahub-{known}" for known in READ_BY_PEOPLE}):
        yield f"{name} is exported, and nobody reads it"
    for known in READ_BY_PEOPLE:
        if f"datahub-{known}" not in exported:
            yield f"READ_BY_PEOPLE names {known}, which is not exported"


@rule
def no_resource_is_left_out_of_the_checks(shipped: Shipped) -> Iterator[str]:
    """Each is there in some place: a condition that is never true hides its resource from every rule."""
    for name, template in shipped.templates.items():
        seen = {
            key for place in shipped.places if name in place.stacks for key in place.stacks[name].resources
        }
        for key in sorted(set(template["Resources"]) - seen):
            yield f"{name}/{key} is made in no place: turn it on in EVERYTHING"
    for name, values in EVERYTHING.items():
        for parameter, value in values.items():
            declaration = shipped.templates.get(name, {}).get("Parameters", {}).get(parameter)
            if declaration is None or _unfit(declaration, value):
                yield f"EVERYTHING: {name}: {parameter}={value} does not fit"


@rule
def everything_resolves(shipped: Shipped) -> Iterator[str]:
    """No value of a resource stays open: a map without the row, a choice beyond the list."""
    for place in shipped.places:
        for name, stack in place.stacks.items():
            yield from (f"{place}: {finding}" for finding in _open(name, stack))


def _open(name: str, stack: Stack) -> Iterator[str]:
    for path, value in templates.walk(stack.resources):
        if isinstance(value, str) and re.search(rf"<{name}\?(?!Image>|MigrationImage>)\w+>", value):
            yield f"{name}: {'/'.join(map(str, path))} is {value}"
