"""Generates the Python code of the API, and checks the contract.

python proto/build.py generate      writes gen/python/trien/v1
python proto/build.py check         generated code is current; buf lint; buf breaking against image.binpb
python proto/build.py image         writes image.binpb: what `check` holds later contracts against
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import grpc_tools
from google.api import field_behavior_pb2

ROOT = Path(__file__).resolve().parent
SOURCES = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("trien/v1/*.proto"))
GOOGLE_API = Path(field_behavior_pb2.__file__).parents[2]
WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"
INCLUDES = [f"-I{path}" for path in (ROOT, GOOGLE_API, WELL_KNOWN)]
BIN = Path(sys.executable).parent


def protoc(*arguments: str) -> None:
    """Runs protoc of grpcio-tools over all sources."""
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *INCLUDES, *arguments, *SOURCES], cwd=ROOT, check=True)


def generate(target: Path) -> None:
    """Writes messages, services and their type stubs below `target`."""
    plugins = [f"--plugin=protoc-gen-{name}={BIN / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc")]
    outputs = [f"--{name}_out={target}" for name in ("python", "grpc_python", "mypy", "mypy_grpc")]
    protoc(*plugins, *outputs)
    for module in [*target.glob("trien/v1/*_pb2_grpc.py*")]:
        if "service" not in module.name:
            module.unlink()
    (target / "trien" / "v1" / "py.typed").touch()


def write_image(path: Path) -> None:
    """Writes the contract as a buf image (a FileDescriptorSet with its source positions)."""
    protoc("--include_imports", "--include_source_info", f"--descriptor_set_out={path}")


def check() -> None:
    """Exits with 1 when generated code is stale, or buf finds a fault or a break."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "gen"
        fresh.mkdir()
        generate(fresh)
        committed = ROOT / "gen" / "python"
        names = {path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()}
        names |= {path.relative_to(committed) for path in committed.glob("trien/v1/*.py*")}
        for name in sorted(names):
            old, new = committed / name, fresh / name
            if not (old.exists() and new.exists() and old.read_bytes() == new.read_bytes()):
                sys.exit(f"proto/gen/python/{name} is not current: run `make proto`")
        image = Path(folder) / "image.binpb"
        write_image(image)
        config = ROOT / "buf.yaml"
        subprocess.run([BIN / "buf", "lint", image, "--config", config], cwd=ROOT, check=True)
        against = ROOT / "image.binpb"
        subprocess.run([BIN / "buf", "breaking", image, "--against", against, "--config", config], cwd=ROOT, check=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["generate"]:
            generate(ROOT / "gen" / "python")
        case ["image"]:
            write_image(ROOT / "image.binpb")
        case ["check"]:
            check()
        case _:
            sys.exit(__doc__)
