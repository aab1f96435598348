"""Test the corrections of Lambda."""

import json
from concurrent.futures import ThreadPoolExecutor

from botocore.exceptions import ClientError

from local.emulator import runtime
from tests.emulator.aws import Aws, archive, catch, count_call, until


class TestLambda:
    def test_an_error_is_named_by_the_class_of_the_exception(self, aws: Aws) -> None:
        source = """
            class Refused(Exception): pass
            def handler(event, context): raise Refused("no")
        """
        function = aws.create_function("refuses", source)
        machine = aws.create_machine("refused", {"Type": "Task", "Resource": function, **catch("Refused")})
        assert json.loads(aws.run(machine)["output"])["Error"] == "Refused"

    def test_a_crash_is_an_exit_error(self, aws: Aws) -> None:
        aws.create_function("crashes", "import os\ndef handler(event, context): os._exit(1)")
        answer = aws.functions.invoke(FunctionName="crashes")
        assert json.loads(answer["Payload"].read())["errorType"] == "Runtime.ExitError"

    def test_imports_come_from_the_runtime_and_from_layers(self, aws: Aws) -> None:
        source = """
            from importlib.util import find_spec
            import boto3, inlayer
            def handler(event, context): return [name for name in event if find_spec(name)]
        """
        layer = aws.functions.publish_layer_version(
            LayerName="extra", Content={"ZipFile": archive(python__inlayer="")}
        )["LayerVersionArn"]
        aws.create_function("imports", source, Layers=[layer])
        wanted = json.dumps(["boto3", "inlayer", "ministack", "requests", "aws_lambda_powertools", "local"])
        answer = aws.functions.invoke(FunctionName="imports", Payload=wanted)
        assert json.loads(answer["Payload"].read()) == ["boto3", "inlayer"]

    def test_it_runs_on_lambdas_python_if_this_machine_has_one(self, aws: Aws) -> None:
        source = """
            import sys
            def handler(event, context): return "%d.%d" % sys.version_info[:2]
        """
        aws.create_function("version", source)
        answer = aws.functions.invoke(FunctionName="version")
        assert json.loads(answer["Payload"].read()) == runtime.of_functions().version

    def test_a_layer_is_unpacked_and_compiled_once(self, aws: Aws) -> None:
        source = """
            import os, layered
            def handler(event, context): return [layered.__file__, os.path.getmtime(layered.__cached__)]
        """
        layer = aws.functions.publish_layer_version(
            LayerName="layered", Content={"ZipFile": archive(python__layered="")}
        )["LayerVersionArn"]
        seen = []
        for name in ("first", "second"):
            aws.create_function(name, source, Layers=[layer])
            seen.append(json.loads(aws.functions.invoke(FunctionName=name)["Payload"].read()))
        assert seen[0] == seen[1] and seen[0][0].endswith("layered.py")

    def test_eventbridge_retries_a_failing_function_then_tells_its_destination(self, aws: Aws) -> None:
        failures = aws.queue("failures")
        function = aws.create_function("fails", count_call("fails") + "        raise ValueError('no')")
        aws.functions.put_function_event_invoke_config(
            FunctionName="fails",
            MaximumRetryAttempts=1,
            DestinationConfig={"OnFailure": {"Destination": failures.arn}},
        )
        aws.events.put_rule(Name="to-function", EventPattern=json.dumps({"source": ["test"]}))
        aws.events.put_targets(Rule="to-function", Targets=[{"Id": "function", "Arn": function}])
        aws.events.put_events(Entries=[{"Source": "test", "DetailType": "any", "Detail": "{}"}])
        assert aws.message(failures)["requestPayload"]["source"] == "test"
        assert aws.count("fails") == 2

    def test_a_throttled_asynchronous_call_waits(self, aws: Aws) -> None:
        aws.create_function("slow", count_call("slow") + "        time.sleep(0.3)")
        aws.functions.put_function_concurrency(FunctionName="slow", ReservedConcurrentExecutions=1)
        aws.functions.put_function_event_invoke_config(FunctionName="slow", MaximumRetryAttempts=0)
        for _ in range(4):
            aws.functions.invoke(FunctionName="slow", InvocationType="Event")
        until(lambda: aws.count("slow") == 4)

    def test_reserved_concurrency_throttles_and_the_laptops_own_limit_queues(self, aws: Aws) -> None:
        def invoke(name: str) -> int:
            try:
                return aws.functions.invoke(FunctionName=name)["StatusCode"]
            except ClientError as error:
                return error.response["ResponseMetadata"]["HTTPStatusCode"]

        pause = "import time\ndef handler(event, context): time.sleep(0.8)"
        aws.create_function("unlimited", pause)
        aws.create_function("single", pause)
        aws.functions.put_function_concurrency(FunctionName="single", ReservedConcurrentExecutions=1)
        with ThreadPoolExecutor(16) as callers:
            assert sorted(callers.map(invoke, ["single"] * 2)) == [200, 429]
            assert list(callers.map(invoke, ["unlimited"] * 16)) == [200] * 16

    def test_a_template_reserves_concurrency(self, aws: Aws, stack: dict[str, str]) -> None:
        reserved = aws.functions.get_function_concurrency(FunctionName=stack["Function"])
        assert reserved["ReservedConcurrentExecutions"] == 3
