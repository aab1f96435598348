"""Leaves of botocore what our functions need, so that a cold start does not look through the rest.

    python trim.py FOLDER    where the layer's packages are installed

Of 400 services those of SERVICES stay, without their documentation, which is most of what a client reads at its start.
Of the root certificates, which the SDK loads anew for every connection, botocore's own file keeps those that vouch for
AWS: Amazon's, Starfield's (their bridge to older ones), and DigiCert's, which the regions in China use. Everything else
that we connect to is checked against certifi's, which stay as they are.

boto3 keeps its clients and loses the data of its resources. s3transfer loses its process pool, which imports
multiprocessing. charset_normalizer keeps the version that `requests` reads, and takes every text for UTF-8.
"""

import gzip
import json
import shutil
import sys
from pathlib import Path
from typing import Any

# As botocore calls a service -> as its endpoints are listed.
SERVICES = {
    "dynamodb": "dynamodb",
    "events": "events",
    "lambda": "lambda",
    "s3": "s3",
    "secretsmanager": "secretsmanager",
    "sqs": "sqs",
    "ssm": "ssm",
    "stepfunctions": "states",
}
READ = ("clientContextParams",)  # whose documentation botocore reads
ROOTS = ("Amazon Root CA", "Starfield Services Root", "DigiCert Global Root G2")
POOL = "from multiprocessing.managers import BaseManager  # noqa: F401,E402\n"  # in s3transfer, for its process pool
UTF_8_ALONE = '''"""Trimmed: takes every text for UTF-8."""

from charset_normalizer.version import VERSION, __version__

__all__ = ["VERSION", "__version__", "detect"]


def detect(byte_str):
    return {"encoding": "utf-8", "language": "", "confidence": 0.0}
'''
_BEGIN = "# Issuer: "  # of the comment before each certificate of certifi's


def trim(packages: Path) -> None:
    """Removes what is not needed; raises OSError, KeyError or ValueError where the packages are not as they were."""
    botocore = packages / "botocore"
    for service in (botocore / "data").iterdir():
        if service.is_dir() and service.name not in SERVICES:
            shutil.rmtree(service)
    for path in (botocore / "data").rglob("*.json.gz"):
        described = json.loads(gzip.decompress(path.read_bytes()))
        described = undocumented(described) | {one: described[one] for one in READ if one in described}
        path.write_bytes(gzip.compress(json.dumps(described, separators=(",", ":")).encode(), mtime=0))
    _keep_endpoints(botocore / "data/endpoints.json")
    shutil.rmtree(packages / "boto3/data")
    _drop_process_pool(packages / "s3transfer")
    _drop_detection(packages / "charset_normalizer")
    (botocore / "cacert.pem").write_text(roots_of_aws((packages / "certifi/cacert.pem").read_text()))


def _keep_endpoints(path: Path) -> None:
    endpoints = json.loads(path.read_text())
    for partition in endpoints["partitions"]:
        found = partition["services"]
        partition["services"] = {name: found[name] for name in SERVICES.values() if name in found}
    path.write_text(json.dumps(endpoints, separators=(",", ":")))


def _drop_process_pool(s3transfer: Path) -> None:
    (s3transfer / "processpool.py").unlink()
    compat = s3transfer / "compat.py"
    text = compat.read_text()
    if POOL not in text:
        raise ValueError("s3transfer/compat.py does not import multiprocessing as it did")
    compat.write_text(text.replace(POOL, ""))


def _drop_detection(package: Path) -> None:
    for path in package.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "version.py":
            path.unlink()
    (package / "__init__.py").write_text(UTF_8_ALONE)


def undocumented(value: Any) -> Any:
    """`value` without the texts that are for people; a field that happens to be called so is an object, and stays."""
    if isinstance(value, dict):
        kept = ((name, one) for name, one in value.items() if name != "documentation" or not isinstance(one, str))
        return {name: undocumented(one) for name, one in kept}
    return [undocumented(one) for one in value] if isinstance(value, list) else value


def roots_of_aws(bundle: str) -> str:
    kept = []
    for name in ROOTS:
        its = [one for one in bundle.split(_BEGIN)[1:] if one.startswith(f"CN={name}")]
        if not its:
            raise ValueError(f"no root certificate {name} among certifi's")
        kept += its
    return "".join(_BEGIN + one.rstrip() + "\n\n" for one in kept)


if __name__ == "__main__":
    trim(Path(sys.argv[1]))
