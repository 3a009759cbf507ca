"""The generated stubs are those of the .proto files, and the .proto files keep buf's rules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pointsman.v1 import policy_service_pb2, registry_service_pb2, router_service_pb2

ROOT = Path(__file__).parent.parent
PROTOS = ROOT / "proto" / "pointsman" / "v1"
BIN = Path(sys.executable).parent


def test_the_generated_stubs_are_not_stale(tmp_path: Path) -> None:
    outputs = ("--python_out=", "--grpc_python_out=", "--mypy_out=quiet:", "--mypy_grpc_out=quiet:")
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={ROOT / 'proto'}"),
            *(f"{output}{tmp_path}" for output in outputs),
            *map(str, sorted(PROTOS.glob("*.proto"))),
        ],
        check=True,
        env={"PATH": f"{BIN}:/usr/bin:/bin"},
    )
    made = sorted((tmp_path / "pointsman" / "v1").iterdir())
    assert len(made) == 4 * len(list(PROTOS.glob("*.proto")))
    for stub in made:
        assert stub.read_text() == (PROTOS / stub.name).read_text(), f"{stub.name}: run scripts/generate_protos"
    assert {each.name for each in PROTOS.glob("*_pb2*")} == {each.name for each in made}


def test_the_protos_keep_bufs_rules_and_format(tmp_path: Path) -> None:
    for arguments in (("lint",), ("format", "--diff", "--exit-code")):
        done = subprocess.run(
            [str(BIN / "buf"), *arguments],
            cwd=ROOT,
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_message_field_and_method_is_commented() -> None:
    for path in PROTOS.glob("*.proto"):
        before = ""
        for number, line in enumerate(path.read_text().splitlines(), 1):
            text = line.strip()
            declares = text.startswith(("message ", "service ", "enum ", "rpc ")) or " = " in text
            if declares and not text.startswith(("//", "syntax")):
                assert before.startswith("//"), f"{path.name}:{number} has no comment"
            before = text


def test_the_services_are_those_of_the_contract() -> None:
    router = router_service_pb2.DESCRIPTOR.services_by_name["RouterService"]
    registry = registry_service_pb2.DESCRIPTOR.services_by_name["RegistryService"]
    assert set(router.methods_by_name) == {
        *("Route", "ReportReward", "BatchReportRewards", "ActivateDecision", "GetDecision", "ImportDecisions"),
    }
    kinds = {f"{verb}{noun}" for verb in ("Create", "Get", "Update", "Delete") for noun in ("Router", "Model")}
    assert set(registry.methods_by_name) == kinds | {"ListRouters", "ListModels", "GetHistory"}
    policies = policy_service_pb2.DESCRIPTOR.services_by_name["PolicyService"]
    assert set(policies.methods_by_name) == {
        *("CreatePolicy", "GetPolicy", "ListPolicies", "RetirePolicy", "GetEvaluation"),
        *("PromotePolicy", "ListTransitions", "ListSnapshots", "GetPromotionSettings", "UpdatePromotionSettings"),
        *("ExportSnapshot", "ImportSnapshot", "RestoreSnapshot"),
    }
