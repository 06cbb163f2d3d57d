"""Schedules of real runners: each moment once, whoever dies; policies, changes, refusals, callers, commands."""

import calendar
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import apsw
import grpc
import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import events_pb2 as e
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import registry_pb2 as r
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import schedules_pb2 as s
from fastrunner.access.callers import line_of
from fastrunner.cli.client import COMMANDS, QUERIES, REGISTRY
from tests.integration.commands import fastrunner
from tests.integration.runner_process import SERVE, RunnerProcess, running, until

DEADLINE_S = 60.0


def document(schedule: str = "", name: str = "tick", task: str = "set: {x: 1}") -> str:
    head = f"document: {{dsl: 1.0.3, namespace: shop, name: {name}, version: 1.0.0}}\n"
    return head + (f"schedule: {schedule}\n" if schedule else "") + f"do:\n- step: {{{task}}}\n"


class Client:
    """Calls one runner."""

    def __init__(self, runner: RunnerProcess, token: str = "") -> None:
        self.channel = grpc.insecure_channel(runner.target)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else None

    def call(self, service: str, method: str, request: Any, reply: Any) -> Any:
        invoke = self.channel.unary_unary(
            service + method, request_serializer=type(request).SerializeToString, response_deserializer=reply.FromString
        )
        give_up_s = time.monotonic() + DEADLINE_S
        while True:
            try:
                return invoke(request, timeout=DEADLINE_S, wait_for_ready=True, metadata=self._metadata)
            except grpc.RpcError as error:
                # The worker that it had reached was killed.
                if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > give_up_s:
                    raise

    def add(self, text: str = "", schedule_id: str = "", **fields: Any) -> s.AddScheduleResponse:
        execution = fields.pop("execution", None) or m.WorkflowExecuteInput(workflow_yaml=text)
        request = s.AddScheduleRequest(schedule_id=schedule_id, execution=execution, **fields)
        reply: s.AddScheduleResponse = self.call(REGISTRY, "AddSchedule", request, s.AddScheduleResponse)
        return reply

    def schedules(self) -> dict[str, s.Schedule]:
        page = self.call(REGISTRY, "ListSchedules", s.ListSchedulesRequest(), s.ListSchedulesResponse)
        return {each.schedule_id: each for each in page.schedules}

    def change(self, verb: str, schedule_id: str, **fields: str) -> Any:
        request = getattr(s, f"{verb}ScheduleRequest")(schedule_id=schedule_id, **fields)
        return self.call(REGISTRY, f"{verb}Schedule", request, getattr(s, f"{verb}ScheduleResponse"))

    def executions(self, schedule_id: str) -> list[q.Execution]:
        """What a schedule has started, the latest first."""
        found: list[q.Execution] = []
        request = q.ListExecutionsRequest(labels={"schedule": schedule_id}, page_size=1000)
        while True:
            page = self.call(QUERIES, "ListExecutions", request, q.ListExecutionsResponse)
            found += page.executions
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    def ids(self, schedule_id: str) -> list[str]:
        return sorted(each.execution_id for each in self.executions(schedule_id))


def fires_on(client: Client, count: int) -> int:
    """Waits for so many more executions of `tick`; how many there are."""
    seen = len(client.ids("tick"))
    until(lambda: len(client.ids("tick")) >= seen + count, DEADLINE_S)
    return len(client.ids("tick"))


def shown_when(client: Client, schedule_id: str, condition: Callable[[s.Schedule], object]) -> s.Schedule:
    """A schedule once it is so."""
    until(lambda: condition(client.schedules()[schedule_id]), DEADLINE_S)
    return client.schedules()[schedule_id]


def refused(call: Callable[..., Any], *arguments: Any, **fields: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **fields)
    error: Any = caught.value
    return error.code().name, error.details()


def leader_of(runner: RunnerProcess) -> int:
    """The process that fires: it has the lock."""
    inode = (runner.data_dir / "schedules.leader").stat().st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if words[1] == "FLOCK" and int(words[5].split(":")[2]) == inode:
            return int(words[4])
    return 0


def seconds_of(ids: list[str]) -> list[int]:
    """Their moments, in seconds since the epoch."""
    moments = [each.split("~")[1].removesuffix("Z") for each in ids]
    return [calendar.timegm(time.strptime(each, "%Y-%m-%dT%H:%M:%S")) for each in moments]


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunnerProcess]:
    with running(tmp_path_factory.mktemp("schedules") / "data", SERVE) as process:
        process.wait_ready()
        until(process.ready)
        yield process


@pytest.fixture(scope="module")
def client(runner: RunnerProcess) -> Client:
    return Client(runner)


def test_each_second_once_whoever_dies(tmp_path: Path) -> None:
    """The worker that fires is killed, twice, then the whole tree, then it is stopped and started: every second since
    the schedule was added has one execution, and no second has two."""
    folder = tmp_path / "data"
    killed: list[int] = []
    with running(folder, SERVE) as runner:
        runner.wait_ready()
        client = Client(runner)
        added = client.add(document("{every: PT1S}"), "tick", options=s.ScheduleOptions(misfire=s.MISFIRE_POLICY_ALL))
        assert added.created
        for _ in range(2):
            fires_on(client, 2)
            pid = until(lambda: leader_of(runner) not in (0, *killed) and leader_of(runner), DEADLINE_S)
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
        fires_on(client, 2)
        assert len(set(killed)) == 2
        runner.process.kill()
        runner.end()
    with running(folder, SERVE) as runner:
        runner.wait_ready()
        client = Client(runner)
        seen = fires_on(client, 3)
        assert runner.stop()[0] == 0
    with running(folder, SERVE) as runner:
        runner.wait_ready()
        client = Client(runner)
        until(lambda: client.schedules()["tick"].started_count >= seen + 3, DEADLINE_S)
        client.change("Pause", "tick")
        shown = client.schedules()["tick"]
        seconds = seconds_of(client.ids("tick"))
        first = shown.added_ms // 1000 + 1
        # The one that was being fired when it was paused may not be noted.
        assert seconds == list(range(first, first + len(seconds)))
        assert 0 <= len(seconds) - shown.started_count <= 2
        assert shown.missed_count == 0
        assert until(lambda: runner.metric("workflow_runner_schedule_leaders") == 1)
        assert runner.metric("workflow_runner_schedules") == 1


def test_cron_and_after(client: Client) -> None:
    """`after` begins at once and counts from the end, of a failed one, too; a cron expression shows its next moment."""
    client.add(
        document("{after: PT1S}", task="raise: {error: {type: 'https://a.b/c', status: 500, title: no}}"), "again"
    )
    until(lambda: len([each for each in client.executions("again") if each.finished_ms]) >= 3, DEADLINE_S)
    by_begin = sorted(client.executions("again"), key=lambda each: each.accepted_ms)
    for before, following in pairwise(by_begin):
        assert before.status == "failed"
        assert following.accepted_ms >= before.finished_ms + 1000
    client.change("Delete", "again")
    options = s.ScheduleOptions(timezone="Europe/Berlin")
    client.add(document("{cron: '30 3 1 1 *'}"), "yearly", options=options)
    shown = shown_when(client, "yearly", lambda each: each.next_ms)
    assert time.strftime("%m-%d %H:%M", time.gmtime(shown.next_ms / 1000)) == "01-01 02:30"
    assert (shown.options.misfire, shown.options.overlap) == (s.MISFIRE_POLICY_ONCE, s.OVERLAP_POLICY_ALLOW)
    assert (shown.trigger.cron, shown.namespace, shown.name, shown.version) == ("30 3 1 1 *", "shop", "tick", "1.0.0")


def test_overlap(client: Client) -> None:
    """While an execution is going on `skip` leaves moments out, and `queue` has them wait for its end."""
    for policy in (s.OVERLAP_POLICY_SKIP, s.OVERLAP_POLICY_QUEUE):
        of = f"overlap-{policy}"
        options = s.ScheduleOptions(overlap=policy, queue_count_max=2)
        client.add(document("{every: PT1S}", task="wait: PT3S"), of, options=options)
    until(lambda: all(client.schedules()[f"overlap-{p}"].started_count >= 3 for p in (2, 3)), DEADLINE_S)
    until(lambda: all(client.schedules()[f"overlap-{p}"].overlapped_count >= 1 for p in (2, 3)), DEADLINE_S)
    assert until(lambda: client.schedules()["overlap-3"].queued_count)
    for of in ("overlap-2", "overlap-3"):
        client.change("Delete", of)
        executions = sorted(client.executions(of), key=lambda each: each.accepted_ms)
        for before, following in pairwise(executions):
            assert following.accepted_ms >= before.finished_ms > 0


def test_pause_resume_delete_fire(client: Client) -> None:
    """A paused schedule starts nothing but what is asked for; deleted, it is gone, and its id is free."""
    added = client.add(document("{every: PT1S}"), "person")
    until(lambda: client.ids("person"), DEADLINE_S)
    shown = client.change("Pause", "person", reason="holidays").schedule
    assert (shown.paused, shown.reason, shown.next_ms) == (True, "holidays", 0)
    fired = client.call(
        REGISTRY, "FireSchedule", s.FireScheduleRequest(schedule_id="person", key="k"), s.FireScheduleResponse
    )
    assert fired.execution_id == "person~fire-k"
    again = client.call(
        REGISTRY, "FireSchedule", s.FireScheduleRequest(schedule_id="person", key="k"), s.FireScheduleResponse
    )
    assert again == fired
    assert client.ids("person").count("person~fire-k") == 1
    # What was under way when it was paused has come by the time another schedule has fired twice.
    client.add(document("{every: PT1S}"), "other")
    until(lambda: len(client.ids("other")) >= 2, DEADLINE_S)
    before = client.ids("person")
    until(lambda: len(client.ids("other")) >= 4, DEADLINE_S)
    assert client.ids("person") == before
    client.change("Resume", "person")
    until(lambda: len(client.ids("person")) >= len(before) + 2, DEADLINE_S)
    moments = [each for each in client.ids("person") if "fire" not in each]
    assert seconds_of(moments)[-1] - seconds_of(moments)[0] >= len(moments), "the pause has no moments"
    for of in ("person", "other"):
        client.change("Delete", of)
        assert refused(client.change, "Resume", of)[0] == "NOT_FOUND"
    assert client.add(document("{every: PT1H}"), "person").created
    assert client.schedules()["person"].started_count == 0
    assert added.created
    client.change("Delete", "person")


def test_backfill(client: Client) -> None:
    """Each moment of a range once, and once only; a range that is too long is refused with where to stop."""
    client.add(document("{cron: '0 3 * * *'}"), "nightly")
    begin_ms, day_ms = 1_767_225_600_000, 86_400_000  # 2026-01-01

    def backfill(days: int) -> list[str]:
        request = s.BackfillScheduleRequest(schedule_id="nightly", from_ms=begin_ms, until_ms=begin_ms + days * day_ms)
        reply = client.call(REGISTRY, "BackfillSchedule", request, s.BackfillScheduleResponse)
        return [each.execution_id for each in reply.moments]

    assert backfill(2) == ["nightly~2026-01-01T03:00:00Z", "nightly~2026-01-02T03:00:00Z"]
    assert len(backfill(4)) == 4
    nights = [f"nightly~2026-01-0{day}T03:00:00Z" for day in (1, 2, 3, 4)]
    # Listings of Temporal are a moment behind.
    until(lambda: client.ids("nightly") == nights, DEADLINE_S)
    code, says = refused(lambda: backfill(1001))
    assert (code, "end it at 2028-09-27T03:00:00" in says) == ("INVALID_ARGUMENT", True), says
    assert refused(lambda: backfill(0))[0] == "INVALID_ARGUMENT"
    client.change("Delete", "nightly")


def test_a_registered_workflow_and_its_input(client: Client) -> None:
    """By reference, with a trigger of the request; executions have the input and the labels that were given."""
    text = document(name="greeting", task="set: {says: '${ .to }'}")
    client.call(REGISTRY, "RegisterWorkflow", r.RegisterWorkflowRequest(workflow_yaml=text), r.RegisterWorkflowResponse)
    execution = m.WorkflowExecuteInput(
        workflow_ref=m.WorkflowRef(namespace="shop", name="greeting"), input_json='{"to": "you"}', labels={"team": "a"}
    )
    reply = client.add(execution=execution, trigger=s.ScheduleTrigger(every="PT1S"))
    assert (reply.schedule.schedule_id, reply.schedule.version) == ("shop.greeting", "")
    assert not client.add(execution=execution, trigger=s.ScheduleTrigger(every="PT1S")).created
    other = refused(lambda: client.add(execution=execution, trigger=s.ScheduleTrigger(every="PT2S")))
    assert other[0] == "ALREADY_EXISTS"
    execution_id = until(lambda: client.ids("shop.greeting"), DEADLINE_S)[0]
    request = q.GetExecutionRequest(execution_id=execution_id)
    found = until(
        lambda: (
            (each := client.call(QUERIES, "GetExecution", request, q.GetExecutionResponse).execution).output_json
            and each
        )
    )
    assert found.output_json == '{"says":"you"}'
    assert dict(found.labels) == {"team": "a", "schedule": "shop.greeting"}
    # Without the workflow its moments fail, and the schedule says so and goes on.
    delete = r.DeleteWorkflowRequest(workflow_ref=m.WorkflowRef(namespace="shop", name="greeting", version="1.0.0"))
    client.call(REGISTRY, "DeleteWorkflow", delete, r.DeleteWorkflowResponse)
    shown = shown_when(client, "shop.greeting", lambda each: each.failed_count >= 2)
    assert "no version at all of workflow 'greeting'" in shown.last_error
    client.change("Delete", "shop.greeting")


def test_events_start_executions(tmp_path: Path) -> None:
    """one, any and all; as data and as envelopes; events after it was added; each once, though who fires is killed."""
    with running(tmp_path / "data", SERVE) as runner:
        runner.wait_ready()
        client = Client(runner)
        sent = 0

        def send(*types: str) -> None:
            nonlocal sent
            events = []
            for each in types:
                sent += 1
                event = e.CloudEvent(id=f"e{sent}", source="/test", spec_version="1.0", type=each)
                event.attributes["datacontenttype"].ce_string = "application/json"
                event.text_data = json.dumps({"n": sent})
                events.append(event)
            client.call(COMMANDS, "SendEvents", e.SendEventsRequest(events=events), e.SendEventsResponse)

        send("a", "b")
        task = "set: {got: '${ $workflow.input }'}"
        client.add(document("{on: {one: {with: {type: a}}}}", task=task), "one")
        client.add(document("{on: {any: [{with: {type: a}}, {with: {type: b}}]}, read: envelope}", task=task), "any")
        client.add(document("{on: {all: [{with: {type: a}}, {with: {type: b}}]}}", task=task), "all")
        send("a", "c")
        until(lambda: [len(client.ids(of)) for of in ("one", "any", "all")] == [1, 1, 0], DEADLINE_S)
        os.kill(until(lambda: leader_of(runner), DEADLINE_S), signal.SIGKILL)
        send("b", "a", "b")
        until(lambda: [len(client.ids(of)) for of in ("one", "any", "all")] == [2, 4, 2], DEADLINE_S)

        def outputs(of: str) -> list[Any]:
            found = []
            for execution_id in client.ids(of):
                request = q.GetExecutionRequest(execution_id=execution_id)
                reply = client.call(QUERIES, "GetExecution", request, q.GetExecutionResponse)
                found.append(json.loads(reply.execution.output_json or "{}").get("got"))
            return found

        until(lambda: all(outputs(of).count(None) == 0 for of in ("one", "any", "all")), DEADLINE_S)
        assert outputs("one") == [[{"n": 3}], [{"n": 6}]]
        assert [[each["type"] for each in got] for got in outputs("any")] == [["a"], ["b"], ["a"], ["b"]]
        assert outputs("all") == [[{"n": 3}, {"n": 5}], [{"n": 6}, {"n": 7}]]
        assert "~event-" in client.ids("one")[0]
        until(lambda: client.schedules()["all"].started_count == 2, DEADLINE_S)
        assert json.loads(client.schedules()["one"].trigger.on_json) == {"one": {"with": {"type": "a"}}}


def test_what_is_refused(client: Client) -> None:
    text = document("{every: PT1S}")
    many = {f"label-{number}": "" for number in range(16)}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"text": document()}, "has no `schedule`, and the request has no trigger"),
        ({"text": document("{}")}, "one of the keys every, cron, after and on is required"),
        ({"text": document("{every: PT1S, read: raw}")}, "`read` stands only beside `on`"),
        (
            {
                "text": document("{on: {one: {with: {type: a}}}}"),
                "options": s.ScheduleOptions(overlap=s.OVERLAP_POLICY_QUEUE),
            },
            "choose `allow` or `skip`",
        ),
        ({"text": text, "trigger": s.ScheduleTrigger(on_json="{")}, "trigger.on_json is not JSON"),
        ({"text": text, "trigger": s.ScheduleTrigger(every="PT1S", read="raw")}, "`read` stands only beside `on`"),
        ({"text": document("{every: PT0.05S}")}, "schedule.every is 50 ms: at least 100 ms"),
        ({"text": document("{every: '${ 5 }'}")}, "/schedule/every: not an ISO 8601 duration"),
        ({"text": document("{cron: '0 0 30 2 *'}")}, "a day that no year has"),
        ({"text": text, "trigger": s.ScheduleTrigger()}, "one of the keys every, cron, after"),
        (
            {"text": text, "trigger": s.ScheduleTrigger(cron="0 0 * *")},
            "trigger.cron: a cron expression has five fields",
        ),
        ({"text": text, "trigger": s.ScheduleTrigger(after="5s")}, "trigger.after: "),
        ({"text": text, "schedule_id": "a~b"}, "schedule_id has a `~`"),
        ({"text": text, "schedule_id": "a\nb"}, "schedule_id has a control character"),
        ({"text": text, "schedule_id": "a" * 201}, "at most 200"),
        ({"text": text, "options": s.ScheduleOptions(timezone="Berlin")}, "no time zone 'Berlin'"),
        ({"text": text, "options": s.ScheduleOptions(jitter_ms=1001)}, "options.jitter_ms is 1001: 0 to 1000"),
        ({"text": document("{cron: '0 0 * * *'}"), "options": s.ScheduleOptions(jitter_ms=3_600_001)}, "0 to 3600000"),
        ({"text": text, "options": s.ScheduleOptions(queue_count_max=1001)}, "options.queue_count_max is 1001: 0 to"),
        (
            {"text": text, "options": s.ScheduleOptions(misfire_count_max=1001)},
            "options.misfire_count_max is 1001: 0 to",
        ),
        (
            {"execution": m.WorkflowExecuteInput(workflow_yaml=text, workflow_execution_id="mine")},
            "execution.workflow_execution_id must be empty",
        ),
        (
            {"execution": m.WorkflowExecuteInput(workflow_yaml=text, labels={"schedule": "x"})},
            "names the schedule itself",
        ),
        ({"execution": m.WorkflowExecuteInput(workflow_yaml=text, labels=many)}, "15 are allowed beside 'schedule'"),
        (
            {"execution": m.WorkflowExecuteInput(workflow_yaml=text, input_json="{")},
            "execution: input_json is not JSON",
        ),
        ({}, "workflow_yaml is empty"),
    ]
    for fields, says in cases:
        code, details = refused(client.add, **fields)
        assert (code, says in details) == ("INVALID_ARGUMENT", True), (fields, details)
    key = s.FireScheduleRequest(schedule_id="none", key="k" * 49)
    assert refused(lambda: client.call(REGISTRY, "FireSchedule", key, s.FireScheduleResponse)) == (
        "RESOURCE_EXHAUSTED",
        "key has 49 bytes: at most 48 are allowed",
    )
    for verb in ("Pause", "Resume", "Delete", "Fire"):
        assert refused(client.change, verb, "none")[0] == "NOT_FOUND"
        assert refused(client.change, verb, "")[0] == "INVALID_ARGUMENT"
    assert not {"shop.tick", "a~b"} & set(client.schedules())


def test_a_submission_is_executed_once_and_told_so(client: Client) -> None:
    request = m.WorkflowExecuteInput(workflow_execution_id="submitted", workflow_yaml=document("{every: PT1S}"))
    for _ in range(2):
        reply = client.call(COMMANDS, "ExecuteAsync", request, m.WorkflowExecuteResponse)
        assert len(reply.warnings) == 1
        assert reply.warnings[0].startswith("2:1: schedule-once: ")
        assert "fastrunner schedule add" in reply.warnings[0]
    checked = q.ValidateWorkflowRequest(workflow_yaml=request.workflow_yaml, strict=True)
    assert client.call(QUERIES, "ValidateWorkflow", checked, q.ValidateWorkflowResponse).valid


def test_the_commands(runner: RunnerProcess, client: Client, tmp_path: Path) -> None:
    """add, list, pause, resume, fire, backfill, delete, from the shell."""
    file = tmp_path / "report.yaml"
    file.write_text(document(name="report"))
    to = ("--target", runner.target)

    def done(*command: str) -> str:
        completed = fastrunner("schedule", *command, *to)
        assert completed.returncode == 0, completed.stderr
        return completed.stdout

    given = ("--cron", "0 3 * * *", "--timezone", "Europe/Berlin", "--misfire", "all", "--overlap", "queue")
    more = ("--jitter", "30s", "--queue-max", "5", "--misfire-max", "7", "--label", "team=a", "--input", "1")
    assert done("add", str(file), *given, *more) == "shop.report\n"
    assert done("add", str(file), *given, *more) == "shop.report (was added)\n"
    options = client.schedules()["shop.report"].options
    assert (options.misfire, options.misfire_count_max) == (s.MISFIRE_POLICY_ALL, 7)
    assert (options.overlap, options.queue_count_max, options.jitter_ms) == (s.OVERLAP_POLICY_QUEUE, 5, 30_000)
    until(lambda: client.schedules()["shop.report"].next_ms)
    assert "shop.report  shop/report:1.0.0  cron 0 3 * * * (Europe/Berlin)  next 2" in done("list")
    done("pause", "shop.report", "--reason", "so")
    assert "paused: so" in done("list")
    assert json.loads(done("list", "--json").splitlines()[0])["scheduleId"]
    done("resume", "shop.report")
    assert done("fire", "shop.report", "--key", "now") == "shop.report~fire-now\n"
    moments = done("backfill", "shop.report", "--from", "2026-07-01", "--until", "2026-07-03T00:00+02:00")
    assert moments.splitlines() == [f"shop.report~2026-07-0{day}T01:00:00Z" for day in (1, 2)]
    done("delete", "shop.report")
    assert "shop.report" not in done("list")
    assert fastrunner("schedule", "pause", "shop.report", *to).returncode == 4
    for wrong in (
        ("add",),
        ("add", str(file), "--jitter", "30"),
        ("backfill", "x", "--from", "soon", "--until", "2026"),
    ):
        assert fastrunner("schedule", *wrong, *to).returncode == 2
    assert fastrunner("schedule", "add", str(file), *to).returncode == 4


def test_a_schedule_fires_on_behalf_of_who_added_it(tmp_path: Path) -> None:
    """Roles and namespaces of callers hold for every method; what is executed is sealed in the file."""
    callers, audit, keys = tmp_path / "callers", tmp_path / "audit", tmp_path / "keys"
    roles = "read,submit,control"
    lines = [line_of("shop", roles, "shop", "shop-token"), line_of("bank", roles, "bank", "bank-token")]
    callers.write_text("\n".join([*lines, line_of("reader", "read", "", "reader-token")]) + "\n")
    assert fastrunner("data", "key", str(keys)).returncode == 0
    environment = {
        "FASTRUNNER_CALLERS_FILE": str(callers),
        "FASTRUNNER_AUDIT_FILE": str(audit),
        "FASTRUNNER_DATA_KEY_FILE": str(keys),
    }
    with running(tmp_path / "data", SERVE, **environment) as runner:
        runner.wait_ready()
        shop, bank = Client(runner, "shop-token"), Client(runner, "bank-token")
        reader = Client(runner, "reader-token")
        execution = m.WorkflowExecuteInput(workflow_yaml=document("{every: PT1S}"), env_vars={"A": "canary-in-env"})
        assert shop.add(schedule_id="mine", execution=execution).schedule.added_by == "token:shop"
        assert refused(lambda: bank.add(document("{every: PT1S}"), "theirs"))[0] == "PERMISSION_DENIED"
        assert refused(lambda: reader.add(document("{every: PT1S}"), "theirs"))[0] == "PERMISSION_DENIED"
        until(lambda: shop.ids("mine"), DEADLINE_S)
        assert bank.schedules() == {}
        assert set(reader.schedules()) == {"mine"}
        for verb in ("Pause", "Resume", "Delete", "Fire"):
            assert refused(bank.change, verb, "mine")[0] == "PERMISSION_DENIED"
            assert refused(reader.change, verb, "mine")[0] == "PERMISSION_DENIED"
        assert bank.ids("mine") == []
        shop.change("Pause", "mine", reason="audited")
        until(lambda: "audited" in audit.read_text())
        told = [json.loads(line) for line in audit.read_text().splitlines()]
        assert {
            ("AddSchedule", "mine", "OK"),
            ("PauseSchedule", "mine", "OK"),
            ("FireSchedule", "mine", "PERMISSION_DENIED"),
        } <= {(each["method"], each.get("schedule"), each["outcome"]) for each in told}
        assert runner.stop()[0] == 0
    for file in (tmp_path / "data").glob("schedules*"):
        assert b"canary-in-env" not in file.read_bytes()


def test_a_schedule_that_is_damaged_keeps_no_other_away(tmp_path: Path) -> None:
    with running(tmp_path / "data", SERVE) as runner:
        runner.wait_ready()
        client = Client(runner)
        for of in ("bad", "good"):
            client.add(document("{every: PT1S}"), of)
        file = apsw.Connection(str(tmp_path / "data" / "schedules.db"))
        file.set_busy_timeout(10_000)
        file.execute("update schedules set progress = '{' where schedule_id = 'bad'")
        file.close()
        seen = len(client.ids("good"))
        until(lambda: len(client.ids("good")) >= seen + 2, DEADLINE_S)
        assert "what is stored of schedule 'bad' is damaged" in runner.stop()[2]
