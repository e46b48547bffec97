"""What an address says on its own."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.contract import NETWORKS
from features.networks import LISTED, classify_networks, network_of

EXAMPLES = {
    None: "unknown",
    "": "unknown",
    "not an address": "unknown",
    "1.2.3": "unknown",
    "1.2.3.4.5": "unknown",
    "1.2.3.4:80": "unknown",
    "1.2.3.4\x00": "unknown",
    "10.1.2.3": "unknown",
    "192.168.0.1": "unknown",
    "127.0.0.1": "unknown",
    "::1": "unknown",
    "fe80::1": "unknown",
    "84.180.1.2": "public",
    " 84.180.1.2 ": "public",
    "192.0.2.1": "public",
    "2003:c0::1": "public",
    "17.58.98.1": "prefetch",
    "66.249.84.10": "image_proxy",
    "66.249.66.1": "scanner",
    "::ffff:66.249.84.10": "image_proxy",
    "209.222.82.7": "scanner",
    "104.47.11.1": "scanner",
    "3.5.140.2": "datacentre",
    "13.107.6.152": "datacentre",
    "2600:1f18::1": "datacentre",
}


@pytest.mark.parametrize(("ip", "network"), EXAMPLES.items())
def test_a_known_address_has_its_class(ip: str | None, network: str) -> None:
    assert network_of(ip) == network


@given(st.lists(st.sampled_from(list(EXAMPLES)), max_size=30))
def test_many_are_classed_as_each_is(ips: list[str | None]) -> None:
    assert classify_networks(pa.array(ips, pa.string())).to_pylist() == [EXAMPLES[one] for one in ips]


@given(st.one_of(st.ip_addresses().map(str), st.text(max_size=50)))
def test_whatever_is_written_has_a_class_of_the_contract_and_the_smallest_listed_block_counts(ip: str) -> None:
    assert network_of(ip) in NETWORKS


@given(st.ip_addresses(v=4))
def test_the_class_is_that_of_the_smallest_block_around(address: object) -> None:
    around = [
        (network.prefixlen, name)
        for name, listed in LISTED.items()
        for text in listed.split()
        if (network := ip_network(text)).version == 4 and ip_address(str(address)) in network
    ]
    assert network_of(str(address)) == max(around, default=(0, "public"))[1]


def test_nothing_but_nulls_is_unknown() -> None:
    assert classify_networks(pa.nulls(2)).to_pylist() == ["unknown", "unknown"]
