"""Generate URLs to addresses that must not be reachable from outside. Each class draws them at random.

The special ranges are repeated here on purpose: the campaign must not take its list from `address`.
"""

import ipaddress
import random
from collections.abc import Callable
from urllib.parse import quote


def words(text: str) -> list[str]:
    return text.split()


# IANA's IPv4 special-purpose registry, multicast, class E, and Azure's host agent.
SPECIAL = words("""
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
    192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24
    203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 168.63.129.16/32
""")
FAMOUS = words("""
    127.0.0.1 169.254.169.254 169.254.170.2 169.254.169.253 192.0.0.192 100.100.100.200 10.0.0.1 192.168.0.1 0.0.0.0
    168.63.129.16 255.255.255.255 172.17.0.1
""")
EDGES = [str(net[at]) for net in map(ipaddress.IPv4Network, SPECIAL) for at in (0, -1, net.num_addresses // 2)]
INSIDE = {
    "localtest.me": ["127.0.0.1"],
    "127.0.0.1.nip.io": ["127.0.0.1"],
    "metadata.google.internal": ["169.254.169.254"],
    "inside.example.com": ["10.1.2.3"],
    "two-faced.example.com": ["93.184.216.34", "10.0.0.1"],
    "three-faced.example.com": ["93.184.216.34", "1.1.1.1", "169.254.169.254"],
}
"""Names of the campaign's resolver that lead inside, in whole or in part."""

GOOD = "https://cdn.example.com/v.mp4"


def blocked(dice: random.Random) -> str:
    """An IPv4 address in a special range."""
    net = ipaddress.IPv4Network(dice.choice(SPECIAL))
    return dice.choice([dice.choice(FAMOUS), dice.choice(EDGES), str(net[dice.randrange(net.num_addresses)])])


def _special(dice: random.Random) -> str:
    return f"https://{blocked(dice)}{dice.choice(['', ':443'])}/v.mp4"


def _scheme(dice: random.Random) -> str:
    schemes = (
        "http HTTP ftp file gopher ws wss dict ldap jar unix data javascript s3 ssh tftp netdoc httpss http+unix x"
    )
    host = dice.choice(["cdn.example.com", blocked(dice)])
    odd = [f"//{host}/", f"{host}/v", "", "https", "https:", "https:/", "https://", f"https:{host}", f"https:/{host}/"]
    odd += [f"https:///{host}/", f"://{host}/", f" https://{host}/", f"http:s//{host}", f"h\nttps://{host}/"]
    return dice.choice([f"{dice.choice(schemes.split())}://{host}/v.mp4", dice.choice(odd)])


def _port(dice: random.Random) -> str:
    odd = [
        "0",
        "65536",
        "-1",
        "x",
        "443x",
        "4430",
        "٤٤٣",
        "４４３",
        "80",
        "22",
        "9001",
        "6379",
        "4e2",
        "443:80",
        "+443",
        "0443 ",
    ]
    port = dice.choice([dice.choice(odd), str(dice.choice([n for n in (dice.randrange(1, 65536), 8443) if n != 443]))])
    return f"https://{dice.choice(['cdn.example.com', blocked(dice)])}:{port}/v.mp4"


def _userinfo(dice: random.Random) -> str:
    user = dice.choice(
        ["u", "u:p", "", ":", "cdn.example.com", "cdn.example.com:443", "a@b", "%40", "u%3Ap", blocked(dice)]
    )
    host = dice.choice(["cdn.example.com", blocked(dice), "localhost"])
    return dice.choice(
        [f"https://{user}@{host}/v.mp4", f"https://{blocked(dice)}#@cdn.example.com@", f"https://{host}\\@{user}/"]
    )


def _encoding(dice: random.Random) -> str:
    host = dice.choice([blocked(dice), "localhost", "cdn.example.com"])
    at = dice.randrange(len(host))
    wide = "".join(chr(ord(letter) + 0xFEE0) for letter in blocked(dice))
    circled = blocked(dice).translate({ord(str(n)): chr(0x245F + n) for n in range(1, 10)})
    forms = [
        host[:at] + f"%{ord(host[at]):02x}" + host[at + 1 :],
        "".join(f"%{ord(letter):02X}" for letter in host),
        quote(f"{host}/", safe=""),
        host + dice.choice(["%00", "%23", "%2f", "%5c", "%0d%0a", "%20", "%25"]) + ".example.com",
        wide,
        wide.replace("．", "。"),
        circled if circled != host and not circled.isascii() else wide,
        host.replace(".", dice.choice(["。", "｡", "．"])) if "." in host else f"{host}。",
    ]
    return f"https://{dice.choice(forms)}/v.mp4"


def _number(dice: random.Random) -> str:
    """An IPv4 address as only some readers understand it."""
    value = int(ipaddress.IPv4Address(blocked(dice)))
    parts = [value >> 24, value >> 16 & 255, value >> 8 & 255, value & 255]
    written = [dice.choice([f"0{part:o}", f"0x{part:x}", f"0X{part:X}", f"{part:03o}0", f"00{part}"]) for part in parts]
    mixed = ".".join(
        [written[0], *(dice.choice([str(part), text]) for part, text in zip(parts, written, strict=True))][:4]
    )
    forms = [
        str(value),
        f"{value:#x}",
        f"0{value:o}",
        f"{value + 2**32}",
        f"{parts[0]}.{value & 0xFFFFFF}",
        f"{parts[0]}.{parts[1]}.{value & 0xFFFF}",
        ".".join(written),
        mixed,
        ".".join(map(str, parts)) + ".",
        ".".join(map(str, parts)) + f".{dice.randrange(300)}",
        f"{parts[0]}.{parts[1]}.{parts[2]}.{parts[3] + 256}",
        f"cdn.example.{dice.randrange(300)}",
        f"a.0x{dice.randrange(300):x}",
    ]
    return f"https://{dice.choice(forms)}/v.mp4"


def _ipv6(dice: random.Random) -> str:
    v4 = blocked(dice)
    value = int(ipaddress.IPv4Address(v4))
    high, low = f"{value >> 16:x}", f"{value & 0xFFFF:x}"
    forms = [
        *("::1", "::", "fe80::1", "fe80::1%25eth0", "fd00:ec2::254", "fc00::1", "fec0::1", "ff02::1", "2001:db8::1"),
        *(
            f"::ffff:{v4}",
            f"::ffff:{high}:{low}",
            f"::{v4}",
            f"::ffff:0:{v4}",
            f"64:ff9b::{v4}",
            f"64:ff9b:1::{high}:{low}",
        ),
        *(
            f"2002:{high}:{low}::1",
            f"2001:0:{high}:{low}::",
            f"fe80::5efe:{v4}",
            "2606:4700:4700::1111",
            "v1.x",
            "",
            v4,
        ),
    ]
    host = dice.choice(forms)
    return dice.choice(
        [f"https://[{host}]/v.mp4"] * 4 + [f"https://{host or '::1'}:/v", f"https://[{host}/", f"https://[[{host}]]/"]
    )


def _name(dice: random.Random) -> str:
    host = dice.choice(["localhost", "LOCALHOST", "LocalHost", *INSIDE, "unknown.example.com", "inside.Example.COM"])
    return f"https://{host}{dice.choice(['', ':443'])}/v.mp4"


def _idna(dice: random.Random) -> str:
    hosts = [
        "ⓛocalhost",
        "localhoſt",
        "ｌｏｃａｌｈｏｓｔ",
        "loc\u00adalhost",
        "local\u200bhost",
        "\u202elocalhost",
        "lo\u0301calhost",
    ]
    hosts += [
        "xn--",
        "xn--a",
        "xn--ls8h.la.",
        "xn--\u00e9",
        "ℓocalhost",
        "localhost\u3002",
        "İnside.example.com",
        "𝐥𝐨𝐜𝐚𝐥𝐡𝐨𝐬𝐭",
    ]
    hosts += [
        "localhost\ufe0f",
        "\u2488localhost",
        "ｉnside.example.com",
        "inside。example。com",
        "☃" * 64,
        "é" * 60 + ".com",
    ]
    return f"https://{dice.choice(hosts)}/v.mp4"


def _control(dice: random.Random) -> str:
    odd = [
        "\r\n",
        "\n",
        "\r",
        "\t",
        "\0",
        " ",
        "\x0b",
        "\x1b",
        "\x7f",
        "\x85",
        "\u2028",
        "\u2029",
        "\ufeff",
        "\u3000",
        "\\",
        "\ud800",
    ]
    at = dice.randrange(len(GOOD) + 1)
    tail = dice.choice(["", f"Host: {blocked(dice)}", f"@{blocked(dice)}/"])
    return GOOD[:at] + dice.choice(odd) + tail + GOOD[at:]


def _label(dice: random.Random) -> str:
    host = dice.choice(["cdn.example.com", "localhost", blocked(dice)])
    hosts = [
        f"{host}.",
        f"{host}..",
        f".{host}",
        host.replace(".", "..") if "." in host else f"{host}..x",
        f"-{host}",
        f"{host}-",
    ]
    hosts += [
        "a" * 64 + ".example.com",
        "a." * 130 + "com",
        f"{host},{blocked(dice)}",
        f"{host};x",
        "*",
        f"{{{host}}}",
        f"{host}!",
    ]
    return f"https://{dice.choice(hosts)}/v.mp4"


def _long(dice: random.Random) -> str:
    return GOOD + dice.choice(["?", "/", "#"]) + "a" * dice.choice([8192, 9000, 100_000])


CLASSES: dict[str, Callable[[random.Random], str]] = {
    "special ranges": _special,
    "schemes": _scheme,
    "ports": _port,
    "userinfo": _userinfo,
    "encodings": _encoding,
    "numbers": _number,
    "ipv6": _ipv6,
    "names": _name,
    "idna": _idna,
    "control characters": _control,
    "labels": _label,
    "lengths": _long,
}
