"""What an address says on its own about who made an event.

What enters: the raw ``ip`` column, or one address. What leaves: one of ``contract.NETWORKS`` per value. The promise: a
value's class depends on that value alone; nothing is looked up anywhere; what is no public address is ``unknown``.

The lists are coarse and age: they are evidence with a weight (``features.judge``), never a verdict. Where they come from:

- Google: ``user-triggered-fetchers-google.json`` (image proxies) and ``googlebot.json`` (crawlers), both published by Google
  Search Central; the blocks below were written down from memory of them and widened to whole prefixes.
- Apple: 17.0.0.0/8 is Apple's own (IANA). Mail privacy fetches through the egress of its private relay, published at
  mask-api.icloud.com; the relays' prefixes (Cloudflare, Fastly, Akamai) from memory. People browse through the same relays,
  so it says something of opens and hardly anything of clicks.
- Barracuda: 209.222.80.0/21 and 64.235.144.0/20, as its "Email Gateway Defense IP Ranges" page has them.
- Microsoft 365's mail transport and protection: Microsoft's "URLs and IP address ranges", id 10, from memory.
- Proofpoint, Mimecast, Cisco, Broadcom (MessageLabs), Trend Micro, Hornetsecurity: their pages of data-centre addresses to
  allow, from memory.
- Yahoo: blocks announced by AS26101/AS34010/AS36646, from memory.
- Clouds and hosting (Amazon, Google, Microsoft, OVH, Hetzner, DigitalOcean, Linode): their largest blocks, from memory. All
  of it is missing some and none of it is exact.

Left out on purpose: the web gateways of Zscaler, Forcepoint, Netskope and Cisco Umbrella, because people at work browse through
them.
"""

from __future__ import annotations

import socket
from bisect import bisect_right
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network

import pyarrow as pa

NO_PUBLIC_ADDRESS = """
0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.168.0.0/16 198.18.0.0/15
224.0.0.0/3 ::/3 4000::/2 8000::/1
"""
"""Private, shared, loopback, multicast and unassigned blocks (IANA's special-purpose registries): a proxy of the list's own
wrote them, and who stood behind it is not known. Of IPv6 only 2000::/3 is public. Documentation blocks (192.0.2.0/24 and so on)
stand for public addresses wherever they are written, so they count as such."""

IMAGE_PROXIES = """
66.102.0.0/20 66.249.80.0/20 64.233.172.0/23 72.14.199.0/24 74.125.208.0/20 209.85.238.0/24
98.136.0.0/14 67.195.0.0/16 74.6.0.0/16 72.30.0.0/16 66.163.160.0/19 66.196.64.0/18 69.147.64.0/18 209.191.64.0/18
216.39.48.0/20 212.82.96.0/19 87.248.96.0/19 77.238.160.0/19 188.125.64.0/19 106.10.128.0/17
2001:4998::/32 2a00:1288::/29
"""
"""Google's, then Yahoo's: they fetch when a person opens."""

PREFETCHERS = """
17.0.0.0/8 104.28.0.0/16 140.248.0.0/16 146.75.128.0/17 172.224.224.0/19
2a02:26f7::/32 2606:54c0::/32 2a04:4e41::/32 2a09:bac2::/31 2620:149::/32
"""

SCANNERS = """
66.249.64.0/20
40.92.0.0/15 40.94.0.0/15 40.107.0.0/16 52.100.0.0/14 104.47.0.0/17
67.231.144.0/20 148.163.128.0/19 205.220.160.0/19 185.132.180.0/22 185.183.28.0/22
207.211.30.0/23 205.139.110.0/23 170.10.128.0/21 216.205.24.0/24 63.128.21.0/24 91.220.42.0/24 146.101.78.0/24
195.130.217.0/24 207.82.80.0/24 185.58.84.0/22 194.104.108.0/22 103.96.20.0/22
209.222.80.0/21 64.235.144.0/20
68.232.128.0/19 139.138.32.0/19 216.71.128.0/19 207.54.64.0/19
67.219.240.0/20 85.158.136.0/21 95.131.104.0/21 46.226.48.0/21 117.120.16.0/21 193.109.254.0/23 194.106.220.0/23
195.245.230.0/23 216.82.240.0/20 103.9.96.0/22
150.70.0.0/16 216.104.0.0/19
94.100.128.0/20 185.140.204.0/22
"""
"""A line each: Googlebot, Microsoft 365, Proofpoint, Mimecast, Barracuda, Cisco, Broadcom, Trend Micro, Hornetsecurity."""

DATACENTRES = """
3.0.0.0/8 13.32.0.0/12 13.48.0.0/13 13.56.0.0/14 18.128.0.0/9 34.192.0.0/10 35.152.0.0/13 35.160.0.0/12 35.176.0.0/13
44.192.0.0/10 50.16.0.0/14 52.0.0.0/10 52.64.0.0/11 54.64.0.0/10 54.128.0.0/9 2600:1f00::/24 2a05:d000::/25
34.64.0.0/10 35.184.0.0/13 35.192.0.0/11 35.224.0.0/12 35.240.0.0/13 104.154.0.0/15 104.196.0.0/14 107.178.192.0/18
108.59.80.0/20 130.211.0.0/16 146.148.0.0/17 2600:1900::/28
4.144.0.0/12 13.64.0.0/11 13.96.0.0/13 13.104.0.0/14 20.0.0.0/8 23.96.0.0/13 40.64.0.0/10 51.104.0.0/15 51.120.0.0/16
51.124.0.0/16 51.132.0.0/16 51.136.0.0/15 51.140.0.0/14 52.96.0.0/11 52.136.0.0/13 52.146.0.0/15 52.148.0.0/14
52.152.0.0/13 52.160.0.0/11 65.52.0.0/14 70.37.0.0/17 104.40.0.0/13 104.208.0.0/13 137.116.0.0/15 137.135.0.0/16
138.91.0.0/16 168.61.0.0/16 168.62.0.0/15 191.232.0.0/13 2603:1000::/24
5.39.0.0/17 5.135.0.0/16 5.196.0.0/16 37.59.0.0/16 37.187.0.0/16 46.105.0.0/16 51.38.0.0/16 51.68.0.0/16 51.75.0.0/16
51.77.0.0/16 51.79.0.0/16 51.81.0.0/16 51.83.0.0/16 51.89.0.0/16 51.91.0.0/16 51.161.0.0/16 51.178.0.0/16 51.195.0.0/16
51.210.0.0/16 51.222.0.0/16 51.254.0.0/15 54.36.0.0/14 87.98.128.0/17 91.121.0.0/16 92.222.0.0/16 94.23.0.0/16
137.74.0.0/16 144.217.0.0/16 145.239.0.0/16 147.135.0.0/16 149.202.0.0/16 158.69.0.0/16 164.132.0.0/16 167.114.0.0/16
176.31.0.0/16 178.32.0.0/15 188.165.0.0/16 198.27.64.0/18 198.50.128.0/17 2001:41d0::/32
5.9.0.0/16 46.4.0.0/16 49.12.0.0/15 65.21.0.0/16 65.108.0.0/15 78.46.0.0/15 88.99.0.0/16 88.198.0.0/16 94.130.0.0/16
95.216.0.0/15 116.202.0.0/15 135.181.0.0/16 136.243.0.0/16 138.201.0.0/16 144.76.0.0/16 148.251.0.0/16 157.90.0.0/16
159.69.0.0/16 162.55.0.0/16 167.235.0.0/16 168.119.0.0/16 176.9.0.0/16 178.63.0.0/16 188.40.0.0/16 195.201.0.0/16
213.133.96.0/19 213.239.192.0/18 2a01:4f8::/29
46.101.0.0/16 64.225.0.0/17 68.183.0.0/16 104.131.0.0/16 104.236.0.0/16 107.170.0.0/16 128.199.0.0/16 134.209.0.0/16
138.68.0.0/16 138.197.0.0/16 139.59.0.0/16 142.93.0.0/16 157.230.0.0/16 157.245.0.0/16 159.65.0.0/16 159.89.0.0/16
159.203.0.0/16 161.35.0.0/16 162.243.0.0/16 165.22.0.0/16 165.227.0.0/16 167.71.0.0/16 167.99.0.0/16 167.172.0.0/16
174.138.0.0/17 178.62.0.0/16 178.128.0.0/16 188.166.0.0/16 188.226.128.0/17 192.241.128.0/17 198.199.64.0/18
206.189.0.0/16 207.154.192.0/18 2604:a880::/32 2a03:b0c0::/32
45.33.0.0/17 45.56.64.0/18 45.79.0.0/16 50.116.0.0/18 69.164.192.0/19 72.14.176.0/20 74.207.224.0/19 96.126.96.0/19
97.107.128.0/20 139.162.0.0/16 172.104.0.0/15 173.255.192.0/18 178.79.128.0/18 192.155.80.0/20 198.58.96.0/19
2600:3c00::/28
"""
"""Amazon, Google, Microsoft, OVH, Hetzner, DigitalOcean, Linode."""

LISTED = {
    "unknown": NO_PUBLIC_ADDRESS,
    "image_proxy": IMAGE_PROXIES,
    "prefetch": PREFETCHERS,
    "scanner": SCANNERS,
    "datacentre": DATACENTRES,
}
MAPPED_V4 = b"\0" * 10 + b"\xff\xff"
REMEMBERED = 1 << 16


def classify_networks(ips: pa.Array) -> pa.Array:
    """Class of each address; strings, nulls allowed; the same length and order as the answer.

    >>> classify_networks(pa.array([None, "66.249.84.10", "17.58.0.1", "192.168.0.1", "84.180.1.2"])).to_pylist()
    ['unknown', 'image_proxy', 'prefetch', 'unknown', 'public']
    """
    encoded = ips.cast(pa.string()).fill_null("").dictionary_encode()
    return pa.array([_network(ip) for ip in encoded.dictionary.to_pylist()], pa.string()).take(encoded.indices)


@lru_cache(REMEMBERED)
def network_of(ip: str | None) -> str:
    """Class of one address; what is none is ``unknown``.

    >>> network_of("3.5.140.2"), network_of("2001:db8::1"), network_of("here")
    ('datacentre', 'public', 'unknown')
    """
    return _network(ip or "")


def _network(ip: str) -> str:
    packed = _packed(ip.strip())
    if packed is None:
        return "unknown"
    starts, classes = _V4 if len(packed) == 4 else _V6
    return classes[bisect_right(starts, int.from_bytes(packed)) - 1]


def _packed(ip: str) -> bytes | None:
    """4 or 16 bytes; an IPv4 address in IPv6's clothes is an IPv4 address."""
    try:
        packed = socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)
    except (OSError, ValueError):
        return None
    return packed[12:] if packed.startswith(MAPPED_V4) else packed


def _spans(version: int) -> tuple[list[int], list[str]]:
    """Where each class begins, in order: of nested blocks the smallest counts."""
    blocks: list[tuple[IPv4Network | IPv6Network, str]] = [
        (network, name)
        for name, listed in LISTED.items()
        for text in listed.split()
        if (network := ip_network(text)).version == version
    ]
    edges = {0} | {int(block.network_address) for block, _ in blocks}
    edges |= {int(block.broadcast_address) + 1 for block, _ in blocks}
    starts = sorted(edge for edge in edges if edge < 2 ** (32 if version == 4 else 128))
    return starts, [_smallest(blocks, start) for start in starts]


def _smallest(blocks: list[tuple[IPv4Network | IPv6Network, str]], at: int) -> str:
    around = [(block.prefixlen, name) for block, name in blocks if _holds(block, at)]
    return max(around, default=(0, "public"))[1]


def _holds(block: IPv4Network | IPv6Network, at: int) -> bool:
    return int(block.network_address) <= at <= int(block.broadcast_address)


_V4, _V6 = _spans(4), _spans(6)
