"""Test the corrections of CloudWatch: stored metrics, queries, and alarm states."""

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from local.cloudwatch import alarm_states
from local.cloudwatch.series import reader
from tests.emulator.aws import Aws, until

EMBEDDED = """
    import json, time
    def handler(event, context):
        for value in event["values"]:
            print(json.dumps({"_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [{
                "Namespace": "Probe", "Dimensions": [["service"], ["service", "reason"]],
                "Metrics": [{"Name": "Failed", "Unit": "Count"}]}]},
                "service": "one", "reason": event["reason"], "Failed": value}))
        print("an ordinary line with _aws in it")
        print('{"_aws": {"CloudWatchMetrics": [{"Dimensions": []}]}}')
        time.sleep(event.get("seconds", 0))
        if event["reason"] == "raise": raise ValueError("no")
"""


def read(aws: Aws, namespace: str, metric: str, statistic: str = "Sum", **dimensions: str) -> float | None:
    """The statistic over the last hour, None without any data."""
    end = int(time.time()) // 60 * 60_000 + 60_000
    found = reader(aws.cloudwatch)(namespace, metric, dimensions, statistic, 3600, end - 3_600_000, end)
    return next(iter(found.values()), None)


class TestWhatLands:
    def test_the_embedded_format_with_each_of_its_sets_of_dimensions(self, aws: Aws) -> None:
        aws.create_function("embedded", EMBEDDED)
        for event in ({"values": [1, 2], "reason": "content"}, {"values": [[4, 8]], "reason": "provider"}):
            aws.functions.invoke(FunctionName="embedded", Payload=json.dumps(event))
        assert read(aws, "Probe", "Failed", service="one") == 15
        assert read(aws, "Probe", "Failed", "SampleCount", service="one") == 4
        assert read(aws, "Probe", "Failed", service="one", reason="content") == 3
        assert read(aws, "Probe", "Failed", "Maximum", reason="provider", service="one") == 8
        assert read(aws, "Probe", "Failed", service="two") is None
        assert read(aws, "Probe", "Failed") is None

    def test_all_that_an_invocation_prints_however_slowly(self, aws: Aws) -> None:
        source = """
            import os, time
            def handler(event, context):
                for number in range(50):
                    print("line", number)
                    time.sleep(0.01 if number % 10 == 0 else 0)
                if event == "crash": os._exit(1)
                if event == "raise": raise ValueError("no")
        """
        aws.create_function("prints", source)
        for event in ("", "raise", "crash"):
            aws.functions.invoke(FunctionName="prints", Payload=json.dumps(event))
        told = [event["message"] for event in aws.logs.filter_log_events(logGroupName="/aws/lambda/prints")["events"]]
        assert [told.count(f"line {number}") for number in range(50)] == [3] * 50
        assert not [line for line in told if "\x1e" in line]

    def test_every_invocation_its_error_and_its_own_time(self, aws: Aws) -> None:
        function = aws.create_function("counted", EMBEDDED)
        machine = aws.create_machine("calls", {"Type": "Task", "Resource": function})
        assert aws.run(machine, input={"values": [], "reason": "", "seconds": 0.3})["status"] == "SUCCEEDED"
        aws.functions.invoke(FunctionName="counted", Payload=json.dumps({"values": [], "reason": "raise"}))
        told = {"FunctionName": "counted"}
        assert read(aws, "AWS/Lambda", "Invocations", **told) == 2
        assert read(aws, "AWS/Lambda", "Errors", **told) == 1
        assert read(aws, "AWS/Lambda", "ConcurrentExecutions", "Maximum", **told) == 1
        assert 300 <= read(aws, "AWS/Lambda", "Duration", "Maximum", **told) < 800
        assert read(aws, "AWS/Lambda", "Duration", "Minimum", **told) < 200

    def test_throttled_calls_are_no_invocations(self, aws: Aws) -> None:
        aws.create_function("throttled", EMBEDDED)
        aws.functions.put_function_concurrency(FunctionName="throttled", ReservedConcurrentExecutions=0)
        with pytest.raises(aws.functions.exceptions.TooManyRequestsException):
            aws.functions.invoke(FunctionName="throttled")
        assert read(aws, "AWS/Lambda", "Throttles", FunctionName="throttled") == 1
        assert read(aws, "AWS/Lambda", "Invocations", FunctionName="throttled") is None

    def test_executions_by_their_end(self, aws: Aws) -> None:
        good = aws.create_machine("good", {"Type": "Wait", "Seconds": 2})
        fails = aws.create_machine("fails", {"Type": "Fail", "Error": "No"})
        slow = aws.create_machine("slow", {"Type": "Wait", "Seconds": 60}, TimeoutSeconds=1)
        for machine, end in ((good, "Succeeded"), (fails, "Failed"), (slow, "TimedOut")):
            aws.run(machine)
            until(lambda of=machine, name=end: read(aws, "AWS/States", f"Executions{name}", StateMachineArn=of) == 1)
            assert read(aws, "AWS/States", "ExecutionsStarted", StateMachineArn=machine) == 1
        assert read(aws, "AWS/States", "ExecutionsFailed", StateMachineArn=good) is None
        assert 150 <= read(aws, "AWS/States", "ExecutionTime", "Maximum", StateMachineArn=good) < 2000

    def test_queues_as_they_stand(self, aws: Aws) -> None:
        aws.sqs.send_message(QueueUrl=aws.queue("filling").url, MessageBody="one")
        name = {"QueueName": "filling"}
        assert read(aws, "AWS/SQS", "NumberOfMessagesSent", **name) == 1
        until(lambda: read(aws, "AWS/SQS", "ApproximateNumberOfMessagesVisible", "Maximum", **name) == 1)
        until(lambda: read(aws, "AWS/SQS", "ApproximateAgeOfOldestMessage", "Maximum", **name) >= 0.5)


class TestHowItIsAsked:
    def test_periods_begin_where_the_question_begins(self, aws: Aws) -> None:
        hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
        aws.cloudwatch.put_metric_data(
            Namespace="Periods",
            MetricData=[
                {"MetricName": "m", "Timestamp": hour + timedelta(minutes=minute), "Value": value}
                for minute, value in ((1, 1), (3, 2), (6, 4), (7, 8))
            ],
        )
        start = round(hour.timestamp() * 1000) + 2 * 60_000
        found = reader(aws.cloudwatch)("Periods", "m", {}, "Sum", 300, start, start + 600_000)
        assert found == {start: 2 + 4, start + 300_000: 8}

    def test_metric_math(self, aws: Aws) -> None:
        at = datetime.now(UTC).replace(second=0, microsecond=0)
        data = [{"MetricName": name, "Timestamp": at, "Value": value} for name, value in (("bad", 3.0), ("good", 9.0))]
        aws.cloudwatch.put_metric_data(Namespace="Math", MetricData=data)
        queries: list[dict[str, Any]] = [
            {"Id": name, "ReturnData": False, "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"}}
            for name, metric in ((name, {"Namespace": "Math", "MetricName": name}) for name in ("bad", "good"))
        ]
        (answer,) = aws.cloudwatch.get_metric_data(
            MetricDataQueries=[*queries, {"Id": "share", "Expression": "100 * bad / (bad + good)"}],
            StartTime=at,
            EndTime=at + timedelta(minutes=1),
        )["MetricDataResults"]
        assert (answer["Id"], answer["Values"], answer["Timestamps"]) == ("share", [25.0], [at])
        (refused,) = aws.cloudwatch.get_metric_data(
            MetricDataQueries=[{"Id": "no", "Expression": "bad +"}], StartTime=at, EndTime=at + timedelta(minutes=1)
        )["MetricDataResults"]
        assert refused["StatusCode"] == "InternalError" and "bad +" in refused["Messages"][0]["Value"]


ALARMS = """
AWSTemplateFormatVersion: "2010-09-09"
Parameters: {Minutes: {Type: Number, Default: 1}}
Resources:
  Share:
    Type: AWS::CloudWatch::Alarm
    Properties:
      Metrics:
        - {Id: bad, ReturnData: false, MetricStat: {Stat: Sum, Period: 60, Metric: {Namespace: Alarming, MetricName: bad, Dimensions: [{Name: of, Value: us}]}}}
        - {Id: all, ReturnData: false, MetricStat: {Stat: Sum, Period: 60, Metric: {Namespace: Alarming, MetricName: all}}}
        - {Id: share, Expression: "IF(all >= 4, bad / all, 0)"}
      EvaluationPeriods: !Ref Minutes
      Threshold: 0.5
      ComparisonOperator: GreaterThanThreshold
      TreatMissingData: notBreaching
      AlarmActions: [!Ref Topic]
  Quiet:
    Type: AWS::CloudWatch::Alarm
    Properties:
      Namespace: Alarming
      MetricName: beats
      Statistic: Sum
      Period: 60
      EvaluationPeriods: 3
      DatapointsToAlarm: 2
      Threshold: 1
      ComparisonOperator: LessThanThreshold
      TreatMissingData: breaching
  Both:
    Type: AWS::CloudWatch::CompositeAlarm
    Properties:
      AlarmRule: !Sub 'ALARM("${Share}") AND NOT OK("${Quiet}")'
      ActionsSuppressor: !GetAtt Quiet.Arn
      ActionsSuppressorWaitPeriod: 60
      ActionsSuppressorExtensionPeriod: 120
      AlarmActions: [!Ref Topic]
  Topic: {Type: AWS::SNS::Topic}
Outputs:
  Share: {Value: !Ref Share}
  Quiet: {Value: !Ref Quiet}
  Both: {Value: !Ref Both}
  Topic: {Value: !Ref Topic}
"""  # noqa: E501


def test_alarms_of_a_template(aws: Aws) -> None:
    """Metric math, dimensions, missing data, M of N, a composite; seen by DescribeAlarms, told to a topic."""
    aws.cloudformation.create_stack(StackName="alarms", TemplateBody=ALARMS)
    aws.cloudformation.get_waiter("stack_create_complete").wait(StackName="alarms", WaiterConfig={"Delay": 0.2})
    outputs = aws.cloudformation.describe_stacks(StackName="alarms")["Stacks"][0]["Outputs"]
    names = {output["OutputKey"]: output["OutputValue"] for output in outputs}
    told = aws.queue("told", admits=names["Topic"], service="sns")
    aws.sns.subscribe(TopicArn=names["Topic"], Protocol="sqs", Endpoint=told.arn)

    def states() -> dict[str, str]:
        found = aws.cloudwatch.describe_alarms(AlarmTypes=["MetricAlarm", "CompositeAlarm"])
        by_name = {one["AlarmName"]: one for one in [*found["MetricAlarms"], *found["CompositeAlarms"]]}
        now_ms = round((time.time() + aws.emulator.cloudwatch_ahead) * 1000)
        mine = [by_name[names[one]] for one in ("Share", "Quiet", "Both")]
        by_us = alarm_states.states(mine, reader(aws.cloudwatch), now_ms, {})
        assert by_us == {one["AlarmName"]: one["StateValue"] for one in mine}
        return {logical: by_us[names[logical]] for logical in ("Share", "Quiet", "Both")}

    assert states() == {"Share": "OK", "Quiet": "ALARM", "Both": "OK"}
    data = [{"MetricName": "beats", "Value": 1}, {"MetricName": "all", "Value": 4}]
    bad = {"MetricName": "bad", "Value": 3, "Dimensions": [{"Name": "of", "Value": "us"}]}
    elsewhere = {"MetricName": "bad", "Value": 100, "Dimensions": [{"Name": "of", "Value": "them"}]}
    aws.cloudwatch.put_metric_data(Namespace="Alarming", MetricData=[*data, elsewhere])
    aws.emulator.put_cloudwatch_forward(60)
    aws.cloudwatch.put_metric_data(Namespace="Alarming", MetricData=[*data, bad])
    aws.emulator.put_cloudwatch_forward(60)
    assert states() == {"Share": "ALARM", "Quiet": "OK", "Both": "OK"}
    assert aws.message(told)["Message"]
    aws.emulator.put_cloudwatch_forward(240)
    assert states() == {"Share": "OK", "Quiet": "ALARM", "Both": "OK"}
    assert (
        alarm_states.rings(
            {"AlarmName": "Both", "AlarmActions": ["topic"], "ActionsSuppressor": names["Quiet"]},
            {"Both": "ALARM", names["Quiet"]: "ALARM"},
        )
        is False
    )
