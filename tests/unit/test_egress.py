"""Support: where effects may go, decided: every class of address, in every spelling that systems take for one."""

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrunner.access.egress import Egress, Refused, is_loopback
from fastrunner.base.destinations import Destinations
from fastrunner.config import Environment
from tests.properties import examples

STRICT: Any = {"environment": Environment.PROD}


def reason_of(egress: Egress, host: str, *addresses: str, port: int = 443, **options: Any) -> str:
    """Why a call to a host, which has these addresses if it is a name, is refused; empty if it is not."""
    try:
        egress.check(host, port, **options)
        if addresses:
            egress.permitted(host, port, addresses)
    except Refused as refused:
        return refused.reason if host.strip("[]") in refused.sentence else refused.sentence
    return ""


@pytest.mark.parametrize(
    ("host", "local", "strict"),
    [
        ("93.184.215.14", "", ""),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", "", ""),
        ("127.0.0.1", "", "loopback"),
        ("127.255.0.9", "", "loopback"),
        ("0.0.0.0", "", "loopback"),
        ("::1", "", "loopback"),
        ("::", "", "loopback"),
        ("[::]", "", "loopback"),
        ("10.0.0.1", "", "private"),
        ("172.16.0.1", "", "private"),
        ("172.31.255.255", "", "private"),
        ("172.32.0.1", "", ""),
        ("192.168.1.1", "", "private"),
        ("100.64.0.1", "", "private"),
        ("198.18.0.1", "", "private"),
        ("240.0.0.1", "", "private"),
        ("fd12:3456::1", "", "private"),
        ("fec0::1", "", "private"),
        ("2001:db8::1", "", "private"),
        ("169.254.1.1", "link_local", "link_local"),
        ("fe80::1", "link_local", "link_local"),
        ("fe80::1%lo", "link_local", "link_local"),
        ("::1%lo", "", "loopback"),
        ("169.254.169.254", "metadata", "metadata"),
        ("169.254.170.2", "metadata", "metadata"),
        ("100.100.100.200", "metadata", "metadata"),
        ("168.63.129.16", "metadata", "metadata"),
        ("fd00:ec2::254", "metadata", "metadata"),
        ("fd20:ce::254", "metadata", "metadata"),
        ("0.1.2.3", "no_host", "no_host"),
        ("224.0.0.1", "no_host", "no_host"),
        ("255.255.255.255", "no_host", "no_host"),
        ("ff02::1", "no_host", "no_host"),
        ("metadata.google.internal", "metadata", "metadata"),
        ("Metadata.Google.Internal.", "metadata", "metadata"),
        ("::ffff:127.0.0.1", "", "loopback"),
        ("::ffff:169.254.169.254", "metadata", "metadata"),
        ("::ffff:0:10.0.0.1", "", "private"),
        ("::127.0.0.1", "", "loopback"),
        ("64:ff9b::169.254.169.254", "metadata", "metadata"),
        ("64:ff9b::10.0.0.1", "", "private"),
        ("64:ff9b::93.184.215.14", "", ""),
        ("2002:7f00:1::", "", "loopback"),
        ("2002:a9fe:a9fe::1", "metadata", "metadata"),
        ("2001:0:a9fe:a9fe::1", "metadata", "metadata"),
        ("2001:0:5db8:d70e:0:0:5601:5601", "metadata", "metadata"),
        ("2606::5efe:a9fe:a9fe", "metadata", "metadata"),
        ("2606::200:5efe:10.0.0.1", "", "private"),
    ],
)
def test_addresses_and_names(host: str, local: str, strict: str) -> None:
    assert reason_of(Egress(), host) == local
    assert reason_of(Egress(**STRICT), host) == strict
    # The same as an address that a name has; nothing that is never open is opened.
    try:
        address = str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return
    assert reason_of(Egress(), "name.example", address) == local
    assert reason_of(Egress(**STRICT), "name.example", address) == strict
    assert reason_of(Egress(**STRICT, allow="*,name.example,0.0.0.0/0,::/0"), "name.example", address) == local


@pytest.mark.parametrize(
    "host",
    [
        *("2130706433", "017700000001", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "127.1", "127.0.1", "0"),
        *("127.0.0.1.", "0X7F.1", "93.184.55054", "999.1.1.1", "1.2.3.4.5", "name.0x", "08.0.0.1", ":::1", "1.2.3.4%x"),
    ],
)
def test_addresses_are_written_as_such(host: str) -> None:
    """Systems take these for addresses, and programs disagree for which: none of them goes anywhere."""
    for egress in (Egress(), Egress(**STRICT), Egress(**STRICT, allow="*")):
        assert reason_of(egress, host) == "spelling"


def test_names_that_only_look_like_addresses_are_names() -> None:
    for host in ("1e100.net", "0x7f.example", "127.0.0.1.nip.io", "10.example", "xn--bcher-kva.example", "a_b", "7a"):
        assert reason_of(Egress(**STRICT), host) == ""


def test_allowing() -> None:
    egress = Egress(**STRICT, allow="10.1.0.0/16, [fd00::1]:8443, Billing.Internal, *.svc.example:8080,127.0.0.1:9000")
    assert reason_of(egress, "10.1.2.3") == ""
    assert reason_of(egress, "::ffff:10.1.2.3") == ""
    assert reason_of(egress, "64:ff9b::10.1.2.3") == ""
    assert reason_of(egress, "10.2.2.3") == "private"
    assert reason_of(egress, "fd00::1", port=8443) == ""
    assert reason_of(egress, "fd00::1", port=443) == "private"
    assert reason_of(egress, "billing.internal.", "192.168.7.7") == ""
    assert reason_of(egress, "sub.billing.internal", "192.168.7.7") == "private"
    assert reason_of(egress, "a.b.svc.example", "10.9.9.9", port=8080) == ""
    assert reason_of(egress, "svc.example", "10.9.9.9", port=8080) == "private"
    assert reason_of(egress, "a.b.svc.example", "10.9.9.9", port=8081) == "private"
    assert reason_of(egress, "localhost", "127.0.0.1", port=9000) == ""
    assert reason_of(egress, "localhost", "127.0.0.1", port=9001) == "loopback"


def test_denying() -> None:
    egress = Egress(allow="api.example,93.184.215.0/24", deny="*")
    assert reason_of(egress, "api.example", "8.8.8.8") == ""
    assert reason_of(egress, "other.example", "93.184.215.14") == ""
    assert reason_of(egress, "other.example", "8.8.8.8") == "denied"
    assert reason_of(egress, "127.0.0.1") == "denied"
    some = Egress(deny="8.8.8.0/24,*.bad.example,10.0.0.0/8", allow="10.0.0.1")
    assert reason_of(some, "8.8.8.8") == "denied"
    assert reason_of(some, "x.bad.example", "1.1.1.1") == "denied"
    assert reason_of(some, "bad.example", "1.1.1.1") == ""
    assert reason_of(some, "10.0.0.2") == "denied"
    assert reason_of(some, "10.0.0.1") == ""


def test_of_several_addresses_the_permitted_ones_are_left() -> None:
    egress = Egress(**STRICT)
    assert egress.permitted("h.example", 80, ["127.0.0.1", "8.8.8.8", "::1", "2606::1"]) == ["8.8.8.8", "2606::1"]
    assert egress.permitted("h.example", 80, []) == []


def test_where_a_proxy_looks_names_up_names_are_judged() -> None:
    egress = Egress(**STRICT, deny="*.bad.example")
    elsewhere = {"is_looked_up_elsewhere": True}
    for host in ("localhost", "a.localhost", "127.0.0.1", "ip6-loopback"):
        assert reason_of(egress, host, **elsewhere) == "loopback"
    assert reason_of(egress, "x.bad.example", **elsewhere) == "denied"
    assert reason_of(egress, "good.example", **elsewhere) == ""
    assert reason_of(Egress(deny="*", allow="good.example"), "x.example", **elsewhere) == "denied"
    assert reason_of(Egress(deny="*", allow="good.example"), "good.example", **elsewhere) == ""


def test_the_runners_own_ports_are_closed_everywhere() -> None:
    own = [("0.0.0.0", 9090), ("127.0.0.1", 8080), ("8.8.4.4", 1)]
    for egress in (Egress(own=own), Egress(**STRICT, own=own, allow="*,127.0.0.1,localhost")):
        for host in ("127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1"):
            assert reason_of(egress, host, port=9090) == "own_port"
        assert reason_of(egress, "localhost", "127.0.0.1", port=8080) == "own_port"
        assert reason_of(egress, "0.0.0.0", port=8080) == "own_port"
        assert reason_of(egress, "8.8.4.4", port=1) == "own_port"
        # Somebody else's: the same port of another machine, or of another address of this one.
        assert reason_of(egress, "8.8.8.8", port=9090) == ""
        assert reason_of(egress, "127.0.0.2", port=8080) == ""


def test_refusals_say_where_and_what_to_set() -> None:
    with pytest.raises(Refused) as refused:
        Egress(**STRICT).permitted("billing.internal", 80, ["64:ff9b::a00:1"])
    assert refused.value.sentence == (
        "billing.internal at 64:ff9b::a00:1 for 10.0.0.1, a private address, is refused: with ENV=prod "
        "FASTRUNNER_EGRESS_ALLOW has to name the host or the address"
    )
    with pytest.raises(Refused, match=r"^127\.1, a spelling of 127\.0\.0\.1, is refused: write that address$"):
        Egress().check("127.1", 80)


def test_loopback_names() -> None:
    for host in (
        "localhost",
        "LocalHost.",
        "a.localhost",
        "127.9.9.9",
        "[::1]",
        "::ffff:127.0.0.1",
        "127.1",
        "0.0.0.0",
    ):
        assert is_loopback(host)
    for host in ("localhost.example", "notlocalhost", "10.0.0.1", "example"):
        assert not is_loopback(host)


@pytest.mark.parametrize(
    "text",
    [
        *("10.0.0.1/8", "10.0.0", "300.0.0.1", "a b", "http://a", "a:0", "a:65536", "a:b", "*.", "a.*", "**", ".a"),
        *("-a", "a-", "a..b", "[::1", "::1/200", "10.0.0.0/8:80", "a/b", "5"),
    ],
)
def test_entries_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"is none of|a port is between"):
        Destinations.parse(f"ok.example,{text}")


def test_lists_of_domains() -> None:
    """As programs read NO_PROXY: a name, with a dot before it or without, means all below it."""
    listed = Destinations.parse(" .svc,Example.com ,10.0.0.0/8,[::1],h:81,*.x,", are_domains=True)
    for host in ("a.svc", "svc", "example.com", "www.example.com", "10.1.1.1", "::1", "a.x", "x"):
        assert listed.has_host(host, 80)
    for host in ("asvc", "badexample.com", "11.1.1.1", "::2", "h"):
        assert not listed.has_host(host, 80)
    assert listed.has_host("h", 81)
    assert Destinations.parse("*", are_domains=True).has_host("anything", 1)


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6) | st.ip_addresses(v=4).map(lambda each: f"::ffff:{each}"))
@examples(1000)
def test_what_python_calls_no_global_address_is_refused(address: Any) -> None:
    """An oracle that somebody else keeps: hypothesis prefers special ranges."""
    judged = ipaddress.ip_address(str(address))
    inner = getattr(judged, "ipv4_mapped", None) or getattr(judged, "sixtofour", None) or judged
    if getattr(judged, "teredo", None) is None and not inner.is_global:
        assert reason_of(Egress(**STRICT), "name.example", str(address))
