"""The kernels answer alike on other machines: built for them with what is no Python, and run in an emulator.

It takes minutes, so it is done where FASTNORM_CROSS is set and the tools are there. After a change that is meant to
change bits, rewrite the committed digests with

    python tests/test_kernels_digest.py --write
"""

import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from cases import supported_isas

TESTS = Path(__file__).parent
ROOT = TESTS.parent
KERNELS = ROOT / "fastnorm" / "kernels"
DIGESTS = TESTS / "kernels_digests.json"


class Machine(NamedTuple):
    compiler: str
    emulator: tuple[str, ...] = ()
    isas: tuple[str, ...] = ("baseline",)

    def missing(self):
        return [tool for tool in (self.compiler, *self.emulator[:1]) if shutil.which(tool) is None]


MACHINES = {
    "native": Machine(os.environ.get("CC", "cc"), isas=tuple(supported_isas())),
    "aarch64": Machine("aarch64-linux-gnu-gcc", ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu")),
}


def flags():
    """Those of the extension."""
    for statement in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and statement.targets[0].id == "FLAGS":
            return ast.literal_eval(statement.value)
    raise LookupError("setup.py defines no FLAGS")


def build(machine, folder):
    """Compile kernels and driver, side by side, and link them."""

    def compile_(source):
        made = folder / f"{source.stem}.o"
        subprocess.run([machine.compiler, *flags(), f"-I{KERNELS}", "-c", source, "-o", made], check=True)
        return made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_, [*sorted(KERNELS.glob("*.c")), TESTS / "kernels_digest.c"]))
    program = folder / "kernels_digest"
    subprocess.run([machine.compiler, *objects, "-pthread", "-o", program], check=True)
    return program


def digests(machine, program, isa):
    ran = subprocess.run([*machine.emulator, program, isa], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Build the program of a machine when it is first asked for."""
    if "FASTNORM_CROSS" not in os.environ:
        pytest.skip("FASTNORM_CROSS is not set")
    built = {}

    def program(name):
        if missing := MACHINES[name].missing():
            pytest.skip(f"no {' and no '.join(missing)}")
        if name not in built:
            built[name] = build(MACHINES[name], tmp_path_factory.mktemp(name))
        return built[name]

    return program


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "isa"), [(name, isa) for name, machine in MACHINES.items() for isa in machine.isas])
def test_every_machine_gives_the_committed_digests(programs, name, isa):
    got, want = digests(MACHINES[name], programs(name), isa), json.loads(DIGESTS.read_text(encoding="utf-8"))
    assert got.keys() == want.keys()
    assert [op for op in want if got[op] != want[op]] == []


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        raise SystemExit(__doc__)
    with tempfile.TemporaryDirectory() as made:
        native = MACHINES["native"]
        DIGESTS.write_text(json.dumps(digests(native, build(native, Path(made)), "baseline"), indent=2) + "\n")
    print(f"wrote {DIGESTS}")
