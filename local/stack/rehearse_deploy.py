"""Run the real `sam deploy` of the built template against the emulator on this machine (`make rehearse`).

    python -m local.stack.rehearse_deploy .venv/sam/bin/sam

Three deployments: a new stack, the same again (nothing may change), and one changed parameter. It deploys
`.aws-sam/build` as AWS would get it, with one exception, which it prints: the layer of dependencies holds arm64
binaries, which this machine may be unable to load, so it is replaced by the same locked packages as local wheels.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import requests

from kling_relay_cli import REPOSITORY, STATE
from kling_relay_cli.operators.stack import DeployedStack
from local.emulator.process import CREDENTIALS, REGION, Emulator, EmulatorError
from local.stack import packaging

_BUILT = REPOSITORY / ".aws-sam/build/template.yaml"
_BUILT_LAYER = "ContentUri: DependenciesLayer\n"
_DEPLOY_SECONDS = 300


def say(text: str) -> None:
    print(f"rehearsal: {text}", flush=True)


def expect(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise SystemExit(f"rehearsal: FAILED: {what}: expected {wanted!r} (got {found!r})")
    say(what)


def with_layer(built: str, layer: Path) -> str:
    """Return the built template with the layer of dependencies taken from `layer`."""
    if built.count(_BUILT_LAYER) != 1:
        raise SystemExit(f"{_BUILT}: must contain {_BUILT_LAYER.strip()!r} once: run `make build` again")
    return built.replace(_BUILT_LAYER, f"ContentUri: {layer}\n")


def environment(emulator: Emulator, home: str) -> dict[str, str]:
    """Return the environment for the SAM CLI and for this process, without the user's AWS settings."""
    return {
        **{name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ},
        **CREDENTIALS,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{emulator.port}",  # an IP address: bucket names go into the path
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "HOME": home,
        "SAM_CLI_TELEMETRY": "0",
    }


def deploy(sam: str, template: Path, *more: str) -> str:
    """Run `sam deploy` with the profile `dev`; return its output. Raise SystemExit with the output if it fails."""
    command = [sam, "deploy", "--config-file", str(REPOSITORY / "samconfig.toml"), "--config-env", "dev"]
    command += ["--stack-name", "kling-relay-rehearsal", "--template-file", str(template), *more]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_DEPLOY_SECONDS, check=False
    )
    if done.returncode:
        where = "see above and .local/logs/rehearsal.log"
        raise SystemExit(f"{done.stdout}{done.stderr}\nrehearsal: FAILED: sam deploy: {where}")
    return done.stdout + done.stderr


def answer_without_key(api: str) -> tuple[int, int | None]:
    """Return HTTP status and Kling's code of a request without a key."""
    url = f"{os.environ['AWS_ENDPOINT_URL']}/_aws/execute-api/{api}/live/kling/v1/videos/image2video"
    answer = requests.post(url, json={}, timeout=30)
    body = answer.json() if answer.headers.get("Content-Type") == "application/json" else {}
    return answer.status_code, body.get("code")


def rehearse(sam: str, template: Path) -> None:
    say("sam deploy: a new stack")
    deploy(sam, template)
    stack = DeployedStack("rehearsal")
    expect("the stack is complete", stack.described["StackStatus"], "CREATE_COMPLETE")
    expect("the API answers HTTP 401, code 1001", answer_without_key(stack.resource("Api")), (401, 1001))
    say("sam deploy: the same stack again")
    expect("nothing changes", "No changes to deploy" in deploy(sam, template), True)
    say("sam deploy: TaskRetentionDays=30")
    deploy(sam, template, "--parameter-overrides", "TaskRetentionDays=30")
    expect("the stack is updated", DeployedStack("rehearsal").described["StackStatus"], "UPDATE_COMPLETE")
    function = stack.client("lambda").get_function_configuration(FunctionName=stack.resource("TaskApiFunction"))
    expect("functions see it", function["Environment"]["Variables"]["TASK_RETENTION_DAYS"], "30")
    expect("the API still answers", answer_without_key(stack.resource("Api")), (401, 1001))


def main() -> None:
    if len(sys.argv) != 2 or not _BUILT.exists():
        raise SystemExit("run `make rehearse`: it builds, then runs python -m local.stack.rehearse_deploy path/to/sam")
    began = time.monotonic()
    template = _BUILT.with_name("rehearsal.yaml")  # next to the built one: its paths are relative
    try:
        log_path = STATE / "logs" / "rehearsal.log"
        with tempfile.TemporaryDirectory(prefix="kling-relay-rehearsal-") as home, Emulator(log_path=log_path) as aws:
            say("the emulator is running; using a layer of dependencies built for this machine")
            (Path(home) / "dependencies.zip").write_bytes(packaging.dependencies_layer())
            template.write_text(with_layer(_BUILT.read_text(), Path(home) / "dependencies.zip"))
            mine = environment(aws, home)
            os.environ.clear()
            os.environ.update(mine)
            rehearse(str(Path(sys.argv[1]).absolute()), template)
    except (EmulatorError, packaging.PackagingError, OSError, subprocess.TimeoutExpired) as exc:
        raise SystemExit(f"rehearsal: FAILED: {exc}") from exc
    finally:
        template.unlink(missing_ok=True)
    say(f"PASSED in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
