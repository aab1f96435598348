"""Test local/stack/packaging.py: zips that depend on their files only, and dependencies that are installed once."""

import io
import json
import os
import re
import ssl
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest

from kling_relay_cli import REPOSITORY
from local.emulator import runtime
from local.emulator.runtime import Python
from local.stack import packaging


def names(packed: bytes) -> list[str]:
    return zipfile.ZipFile(io.BytesIO(packed)).namelist()


def tree(folder: Path, order: list[str]) -> Path:
    for name in order:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"# {name}")
    return folder


def test_equal_files_make_equal_zips(tmp_path: Path) -> None:
    files = ["app.py", "data/models.json", "data/deep/x.txt"]
    one = tree(tmp_path / "one", files)
    other = tree(tmp_path / "other", list(reversed(files)))
    os.utime(other / "app.py", (0, 10**9))
    (other / "app.py").chmod(0o755)
    (other / "__pycache__").mkdir()
    (other / "__pycache__" / "app.cpython-313.pyc").write_bytes(b"bytecode")
    assert packaging.zip_folder(one) == packaging.zip_folder(other)
    assert names(packaging.zip_folder(one, "python/")) == [f"python/{name}" for name in sorted(files)]
    (other / "app.py").write_text("# other")
    assert packaging.zip_folder(one) != packaging.zip_folder(other)


def test_the_layer_of_our_own_package() -> None:
    packed = packaging.relay_layer()
    assert packed == packaging.relay_layer()
    assert {"python/kling_relay/__init__.py", "python/kling_relay/provider/profiles.json"} <= set(names(packed))
    assert all(name.startswith("python/kling_relay/") and "__pycache__" not in name for name in names(packed))


@pytest.fixture
def installs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that packages were installed into, in a state folder of the test's own."""
    seen: list[Path] = []

    def install(folder: Path, python: Python) -> None:
        tree(folder, ["python/urllib3/__init__.py"])
        seen.append(folder)

    monkeypatch.setattr(packaging, "STATE", tmp_path / "state")
    monkeypatch.setattr(packaging, "_RECIPE", tmp_path)
    monkeypatch.setattr(packaging, "_install", install)
    (tmp_path / "requirements.txt").write_text("urllib3==1 --hash=sha256:0\n")
    return seen


def test_dependencies_are_installed_once_per_recipe(tmp_path: Path, installs: list[Path]) -> None:
    first = packaging.dependencies_layer()
    assert names(first) == ["python/urllib3/__init__.py"]
    assert packaging.dependencies_layer() == first and len(installs) == 1
    assert (packaging.dependencies_folder() / "urllib3/__init__.py").is_file()
    (tmp_path / "requirements.txt").write_text("urllib3==2 --hash=sha256:0\n")
    packaging.dependencies_layer()
    assert len(installs) == 2 and not installs[0].exists()
    assert len(list((tmp_path / "state").glob("dependencies-*"))) == 2  # one folder, its zip; the old ones are gone


def test_what_an_interrupted_installation_left_is_replaced(tmp_path: Path, installs: list[Path]) -> None:
    first = packaging.dependencies_layer()
    next((tmp_path / "state").glob("*.zip")).unlink()
    tree(installs[0], ["half/__init__.py"])
    assert packaging.dependencies_layer() == first and len(installs) == 2


def test_stacks_that_start_together_install_once(installs: list[Path]) -> None:
    threads = [threading.Thread(target=packaging.dependencies_layer) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(installs) == 1 and len(names(packaging.dependencies_layer())) == 1


def test_each_python_has_packages_of_its_own(tmp_path: Path, installs: list[Path]) -> None:
    pythons = [runtime.HERE, Python("/elsewhere/python", "3.99")]
    assert len({packaging.dependencies_folder(python) for python in pythons}) == 2 == len(installs)
    assert [packaging.dependencies_folder(python).parent for python in pythons] == installs, "both stay"


@pytest.mark.parametrize(
    ("python", "wheels"),
    [(runtime.HERE, ""), (Python("/elsewhere/python", "3.99"), "--python-version 3.99 --only-binary=:all:")],
)
def test_our_own_pip_installs_for_another_python(
    python: Python, wheels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: (commands.append(command), _done())[1])
    packaging._install(tmp_path, python)
    assert commands[0][-3:] == [f"PYTHON={sys.executable}", f"WHEELS={wheels}", "BYTECODE="]


def _done() -> Any:
    return subprocess.CompletedProcess([], 0, "", "")


def test_a_failed_installation_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess(
        [], 1, "", "WARNING: one\nERROR: No matching distribution found for x\nmake: *** Error 1\n"
    )
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(packaging.PackagingError, match="No matching distribution found for x") as caught:
        packaging._install(tmp_path / "folder", runtime.HERE)
    assert "connection" in str(caught.value) and "WARNING" not in str(caught.value)


def test_of_botocore_there_is_what_the_functions_call_and_no_more() -> None:
    """What else is missing, the stack's own tests find: they run on this layer."""
    packages = packaging.dependencies_folder()
    kept = {path.name for path in (packages / "botocore/data").iterdir() if path.is_dir()}
    sources = "".join(path.read_text() for path in (REPOSITORY / "layers/relay/kling_relay").rglob("*.py"))
    assert kept == set(re.findall(r'client\("(\w+)"', sources))
    endpoints = json.loads((packages / "botocore/data/endpoints.json").read_text())
    assert endpoints["partitions"][0]["partition"] == "aws"
    for partition in endpoints["partitions"][:2]:  # AWS, and AWS in China
        assert set(partition["services"]) == {*kept - {"stepfunctions"}, "states"}


def test_for_aws_the_roots_of_aws_are_trusted() -> None:
    packages = packaging.dependencies_folder()
    trusted = [
        ssl.create_default_context(cafile=packages / path) for path in ("botocore/cacert.pem", "certifi/cacert.pem")
    ]
    names = {dict(pair[0] for pair in root["subject"])["organizationName"] for root in trusted[0].get_ca_certs()}
    assert {"Amazon", "Starfield Technologies, Inc.", "DigiCert Inc"} <= names
    assert all(name.startswith(("Amazon", "Starfield", "DigiCert")) for name in names)
    assert len(trusted[0].get_ca_certs()) * 5 < len(trusted[1].get_ca_certs())


def test_boto3_and_requests_start_without_what_the_functions_do_not_use() -> None:
    """In a process of its own, with the layer alone. A missing module or a doubtful version would be a warning."""
    packages = packaging.dependencies_folder(runtime.HERE)
    assert not (packages / "boto3/data").exists()
    script = """
import sys, boto3.session, requests
session = boto3.session.Session("test", "test", region_name="us-east-1")
s3 = session.client("s3")
assert s3.upload_file and s3.generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"})
answer = requests.Response()
answer._content = "é".encode()
assert answer.text == "é"
assert not {"multiprocessing", "charset_normalizer.api"} & sys.modules.keys(), sys.modules.keys()
assert all(module.__file__.startswith(sys.path[1]) for module in (boto3, requests)), boto3.__file__
"""
    environment = {"PYTHONPATH": str(packages), "AWS_EC2_METADATA_DISABLED": "true"}
    subprocess.run([sys.executable, "-S", "-W", "error", "-c", script], env=environment, check=True)
