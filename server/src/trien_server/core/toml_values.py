"""Values as TOML writes them."""

import json


def toml_value(value: str | bool | int | float) -> str:
    """Returns a value as TOML writes it (TOML 1.0; a JSON string is a basic string but for U+007F)."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
