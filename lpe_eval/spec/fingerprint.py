"""A spec as text: the YAML that is stored, the canonical text, and the hash that names a run."""

import hashlib
import json
from typing import Any

import yaml
from pydantic import BaseModel


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal specs give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def fingerprint(value: Any) -> str:
    """SHA-256 of the canonical text, in hexadecimal."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def run_id(value: Any) -> str:
    """Twelve characters that name a run: equal inputs, equal id."""
    return fingerprint(value)[:12]


def spec_text(spec: BaseModel) -> str:
    """The resolved spec as YAML."""
    return yaml.safe_dump(spec.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)
