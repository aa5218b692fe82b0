"""The table of etcd's errors, row by row, on real servers: what an error says of a transaction is what became of it.

Not produced here, since only chance or a broken disk does: too many requests, a dropped proposal, a server that is not
capable yet, an unhealthy cluster, a stopping server, a changed leader. Their rows follow from etcd's source; the
campaign `nemesis` meets them.
"""

import threading
from pathlib import Path

import grpc
import pytest

from agola_core.coordinator import Compare, GetOp, PutOp
from agola_core.coordinator.etcd import messages as rpc
from agola_core.coordinator.etcd.client import _metadata
from agola_core.coordinator.etcd.errors import TABLE, Verdict, explain, find_row
from agola_core.coordinator.etcd.messages import Method, _message
from agola_core.coordinator.outcomes import Outcome
from agola_pytest.servers.etcd import control, start_etcd
from agola_pytest.servers.etcd_cluster import start_etcd_cluster
from tests.fault.etcd.test_etcd_access import guard, openssl
from tests.support.etcd import eventually, put

ALARM = Method("/etcdserverpb.Maintenance/Alarm", _message("AlarmRequest"), _message("AlarmResponse"))
ACTIVATE, CORRUPT = 1, 2


def transaction(*ops, key=b"ci/k"):
    written = rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=b"v"))
    return rpc.TxnRequest(success=[written, *ops])


def send(coordinator, request, method=rpc.TXN, *, token="", timeout=10):
    """Send a request as it is and return the error it ends in."""
    endpoint = coordinator._client._endpoints[0]
    with pytest.raises(grpc.RpcError) as raised:
        endpoint.unary(method, request, timeout, _metadata(token))
    return raised.value


def put_op(key, value=b"", lease=0):
    return rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=value, lease=lease))


WRONG = {
    "lease not found": (grpc.StatusCode.NOT_FOUND, lambda: transaction(put_op(b"ci/l", lease=4711))),
    "duplicate key": (grpc.StatusCode.INVALID_ARGUMENT, lambda: transaction(put_op(b"ci/k"))),
    "request is too large": (grpc.StatusCode.INVALID_ARGUMENT, lambda: transaction(put_op(b"ci/l", bytes(1_700_000)))),
    "future revision": (
        grpc.StatusCode.OUT_OF_RANGE,
        lambda: transaction(rpc.RequestOp(request_range=rpc.RangeRequest(key=b"a", revision=10**9))),
    ),
}


@pytest.mark.parametrize("words", WRONG)
def test_what_is_wrong_is_not_applied(agola_etcd, opened, words):
    coordinator = opened(agola_etcd.url("ci"))
    code, request = WRONG[words]
    ours = request()
    for op in ours.success:  # below the test's own place
        if op.WhichOneof("request") == "request_put":
            op.request_put.key = coordinator._client.settings.prefix + op.request_put.key
    error = send(coordinator, ours)
    failure = explain(error, "etcd")
    assert (error.code(), failure.verdict) == (code, Verdict.FINAL)
    assert words in failure.reason
    assert coordinator.list("").items == ()


def test_a_lease_that_exists_is_told(agola_etcd, opened):
    coordinator = opened(agola_etcd.url("exists"))
    lease = coordinator.grant_lease(60)
    error = send(coordinator, rpc.LeaseGrantRequest(ID=lease, TTL=60), rpc.LEASE_GRANT)
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "lease already exists" in error.details()


def test_a_method_that_is_not_there_is_told(agola_etcd, opened):
    coordinator = opened(agola_etcd.url("method"))
    error = send(coordinator, rpc.RangeRequest(), Method("/etcdserverpb.KV/None", rpc.RangeRequest, rpc.RANGE.response))
    assert explain(error, "etcd").verdict is Verdict.FINAL
    assert "3.4 or newer" in str(explain(error, "etcd").error)


def test_a_corrupt_cluster_refuses_everything(own_etcd, opened):
    coordinator = opened(own_etcd.url("ci"))
    put(coordinator, "before")
    coordinator._client._endpoints[0].unary(ALARM, ALARM.request(action=ACTIVATE, alarm=CORRUPT), 10, _metadata(""))
    failure = explain(send(coordinator, transaction()), "etcd")
    assert failure.verdict is Verdict.FINAL
    assert "etcd's own alarm" in str(failure.error)
    control("alarm", "disarm", endpoint=own_etcd.endpoint)
    assert [item.key for item in coordinator.list("").items] == ["before"]


def test_an_answer_too_long_to_be_received_is_of_something_that_was_applied(agola_etcd, opened):
    coordinator = opened(agola_etcd.url("long"))
    for number in range(30):
        put(coordinator, f"k{number:02}", bytes(1_200_000))
    reads = [GetOp(f"k{number:02}") for number in range(30)]
    result = coordinator.txn([Compare("n", 0)], [PutOp("n", b"1"), *reads])
    assert (result.succeeded, result.revision) == (True, coordinator.get("n").mod_revision)
    assert [len(item.value) for item in result.reads] == [1_200_000] * 30
    assert coordinator.get("n").version == 1


# Users


@pytest.fixture
def token_etcd(tmp_path, etcd_programs):
    """An etcd with users, whose tokens say of themselves which revision of the users they are of."""
    openssl(tmp_path, "genrsa", "-out", "private.pem", "2048")
    openssl(tmp_path, "rsa", "-in", "private.pem", "-pubout", "-out", "public.pem")
    keys = f"pub-key={tmp_path}/public.pem,priv-key={tmp_path}/private.pem"
    with start_etcd(tmp_path / "etcd", arguments=[f"--auth-token=jwt,{keys},sign-method=RS256,ttl=5m"]) as server:
        guard(server)
        yield server


def test_who_is_refused_has_written_nothing(token_etcd, monkeypatch, opened):
    monkeypatch.setenv("CI_PASSWORD", "correct horse")
    coordinator = opened(token_etcd.url("ci", user="ci", password_env="CI_PASSWORD"))
    token = coordinator._client._token
    other = rpc.TxnRequest(success=[put_op(b"elsewhere")])
    wrong = rpc.AuthenticateRequest(name="ci", password="wrong")
    refusals = [
        ("invalid auth token", Verdict.LOGGED_OUT, send(coordinator, transaction(), token="none.1")),
        ("user name is empty", Verdict.FINAL, send(coordinator, transaction())),
        ("permission denied", Verdict.FINAL, send(coordinator, other, token=token)),
        ("authentication failed", Verdict.FINAL, send(coordinator, wrong, rpc.AUTHENTICATE)),
    ]
    control("user", "add", "somebody:else", "--user=root:root", endpoint=token_etcd.endpoint)
    refusals.append(
        ("revision of auth store is old", Verdict.LOGGED_OUT, send(coordinator, transaction(), token=token))
    )
    for words, verdict, error in refusals:
        failure = explain(error, "etcd")
        assert (words in failure.reason, failure.verdict) == (True, verdict), failure
    assert coordinator.list("").items == ()
    assert put(coordinator, "k")  # it logs in again, and nobody hears of it
    control("auth", "disable", "--user=root:root", endpoint=token_etcd.endpoint)
    failure = explain(send(coordinator, wrong, rpc.AUTHENTICATE), "etcd")
    assert ("authentication is not enabled" in failure.reason, failure.verdict) == (True, Verdict.FINAL)


# A cluster that cannot


def test_a_proposal_without_a_majority_is_unknown_and_one_without_a_leader_refused(tmp_path, etcd_programs, opened):
    arguments = ["--heartbeat-interval=20", "--election-timeout=200"]
    with start_etcd_cluster(tmp_path, arguments=arguments) as cluster:
        coordinator = opened(cluster.members[0].url("ci"))
        others = cluster.members[1:]
        for member in others:
            member.pause()
        lost = explain(send(coordinator, transaction(key=b"ci/proposed"), timeout=30), "etcd")
        refused = explain(send(coordinator, transaction(key=b"ci/refused"), timeout=30), "etcd")
        for member in others:
            member.resume()
        assert (lost.verdict, "request timed out" in lost.reason) == (Verdict.LOST, True), lost
        assert (refused.verdict, refused.reason) == (Verdict.REFUSED, "etcdserver: no leader")
        eventually(lambda: put(coordinator, "later"))
        assert "refused" not in [item.key for item in coordinator.list("").items]


# On the way


def test_what_was_sent_and_not_answered_is_unknown(agola_etcd, proxy, opened):
    coordinator = opened(agola_etcd.through(proxy.endpoint).url("ci"))
    endpoint = coordinator._client._endpoints[0]
    proxy.drop_answers()
    failure = explain(send(coordinator, transaction(key=b"way/k"), timeout=0.3), "etcd")
    assert (failure.verdict, find_row(grpc.StatusCode.DEADLINE_EXCEEDED, failure.reason).words) == (Verdict.LOST, "")
    call = endpoint._channel.unary_unary(
        rpc.TXN.path, rpc.TXN.request.SerializeToString, rpc.TXN.response.FromString
    ).future(transaction(key=b"way/k"), timeout=30)
    call.cancel()
    with pytest.raises(grpc.FutureCancelledError):
        call.result()
    assert explain(call, "etcd").verdict is Verdict.LOST
    thread = threading.Timer(0.2, proxy.cut)
    thread.start()
    failure = explain(send(coordinator, transaction(key=b"way/k"), timeout=30), "etcd")
    thread.join()
    assert failure.verdict is Verdict.LOST, failure
    proxy.refuse()
    failure = explain(send(coordinator, transaction(key=b"way/k"), timeout=1), "etcd")
    assert failure.verdict in {Verdict.REFUSED, Verdict.LOST}


def test_the_table_is_the_one_that_is_documented():
    page = (Path(__file__).parents[3] / "docs" / "guarantees.md").read_text()
    for row in TABLE:
        code = row.code.name if row.code else "any"
        assert f"| {code} | {row.words or 'any'} | {row.verdict.outcome} |" in page
    assert {row.verdict.outcome for row in TABLE} == {Outcome.NOT_APPLIED, Outcome.UNKNOWN}
