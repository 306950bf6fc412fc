"""What holds for every file of the repository."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Written in parts, so that this file does not name them either.
REGISTRIES = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("crates", "io"),
        ("proxy", "golang", "org"),
        ("repo1", "maven", "org"),
        ("repo", "maven", "apache", "org"),
        ("deb", "debian", "org"),
        ("security", "debian", "org"),
        ("archive", "ubuntu", "com"),
        ("docker", "io"),
        ("ghcr", "io"),
    )
)
# Home folders and the like; /root is a path of containers as well as of people.
PRIVATE_PATHS = re.compile(r"(?<![\w.])/(?:home|Users|work)/\w|[A-Z]:\\Users\\")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def _files() -> Iterator[tuple[Path, str]]:
    """Every text file that is committed or would be, by its path in the repository, with its text."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    # A checkout of another user's is fine here.
    settings = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": str(ROOT)}
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(
        command, cwd=ROOT, env=os.environ | settings, capture_output=True, check=True, text=True
    ).stdout
    for name in sorted(set(listed.split("\0"))):
        path = ROOT / name
        if name and path.is_file():
            try:
                yield Path(name), path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def test_no_file_names_a_package_registry() -> None:
    seen, found = 0, []
    for name, text in _files():
        seen += 1
        found += [f"{name}: {host}" for host in REGISTRIES if host in text]
    assert found == []
    assert seen > 100


def test_no_file_holds_a_path_of_somebodys_machine() -> None:
    seen, found = 0, []
    for name, text in _files():
        seen += 1
        found += [f"{name}: {match.group()}" for match in PRIVATE_PATHS.finditer(text)]
    assert found == []
    assert seen > 100


def test_every_link_between_the_documents_leads_somewhere() -> None:
    seen, broken = 0, []
    for name, text in _files():
        if name.suffix != ".md":
            continue
        for target in LINK.findall(text):
            if re.match(r"[a-z]+:|#", target):
                continue
            seen += 1
            if not (ROOT / name.parent / target.partition("#")[0]).exists():
                broken.append(f"{name}: {target}")
    assert broken == []
    assert seen > 10


def test_every_make_target_in_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        (str(name), target)
        for name, text in _files()
        if name.suffix == ".md"
        for target in re.findall(r"(?:`|^ *)make ([a-z-]+)", text, re.MULTILINE)
    }
    assert {target for _, target in named} >= {"demo", "test", "run", "lint"}
    assert [(name, target) for name, target in sorted(named) if target not in targets] == []


def test_ci_runs_what_the_readme_tells_people_to_run() -> None:
    readme, ci = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", ".ci/run"))
    for command in ("make test", "make lint"):
        assert command in readme
        assert re.search(rf"^{command}\b", ci, re.MULTILINE)
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_every_distribution_has_the_licence_and_one_version() -> None:
    members = ("proto/gen/python", "server", "client/python", ".")
    texts = [(ROOT / member / "pyproject.toml").read_text(encoding="utf-8") for member in members]
    assert all('license = "Apache-2.0"' in text for text in texts)
    versions = {re.search(r'^version = "(.*)"', text, re.MULTILINE)[1] for text in texts}  # type: ignore[index]
    assert len(versions) == 1
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{versions.pop()}]" in changelog or "## [Unreleased]" in changelog
