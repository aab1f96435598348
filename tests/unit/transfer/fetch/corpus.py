"""List addresses that must not be connected to, and their allowed neighbours."""


def words(text: str) -> list[str]:
    return text.split()


LITERALS = words("""
    127.0.0.1 127.0.0.2 127.255.255.255 0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200
    100.127.255.255 169.254.169.254 169.254.170.2 169.254.0.1 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.8
    192.0.0.9 192.0.0.170 192.0.0.192 192.0.2.1 192.31.196.1 192.52.193.1 192.88.99.1 192.168.0.1
    192.168.255.255 192.175.48.1 198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.9 224.0.0.1 239.255.255.255
    240.0.0.1 255.255.255.255 168.63.129.16
""")
NEIGHBOURS = words("""
    1.1.1.1 8.8.8.8 11.0.0.1 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 169.253.1.1 172.15.0.1 172.32.0.0
    192.0.1.1 192.167.1.1 192.169.0.1 198.17.0.1 198.20.0.1 223.255.255.255 168.63.129.15
""")
HOSTILE = [
    *(f"https://{literal}/v.mp4" for literal in LITERALS),
    # other spellings of an IPv4 address
    *(f"https://{host}/v.mp4" for host in words("""
        2130706433 0x7f000001 017700000001 127.1 127.0.1 0177.0.0.1 0x7f.0.0.1 0x7f.1 127.0.0.01 010.0.0.1
        1.1 0 0x0 00000000 127.0.0.1. 127.0.0.0x1 3232235521 4294967295 4294967296 1.2.3 1.2.3.4.5
        256.256.256.256 999.1.1.1 08.8.8.8 0xa9fea9fe 2852039166 169.16689662 1.0x a.0x1 cdn.example.123
    """)),
    # IPv6, and IPv4 inside of it
    *(f"https://[{host}]/v.mp4" for host in words("""
        ::1 :: ::ffff:127.0.0.1 ::ffff:7f00:1 ::127.0.0.1 ::ffff:0:127.0.0.1 64:ff9b::7f00:1 2002:7f00:1::
        fec0::1 fe80::1 fe80::1%25eth0 fd00:ec2::254 fc00::1 2606:4700:4700::1111 v1.x
    """)),
    "https://::1/v.mp4",
    # names that lead inside, in whole or in part
    *(f"https://{host}/v.mp4" for host in words("""
        localhost LOCALHOST localtest.me metadata.google.internal inside.example.com two-faced.example.com
    """)),
    # scheme and port
    *(f"{scheme}://cdn.example.com/v.mp4" for scheme in words("""
        http ftp file gopher ws wss data javascript s3 httpss dict ldap jar unix
    """)),
    *(f"https://cdn.example.com:{port}/v.mp4" for port in words("""
        80 22 0 444 8443 6379 9001 65535 65536 -1 x 4430 443x ４４３
    """)),
    "file:///etc/passwd", "//cdn.example.com/v.mp4", "cdn.example.com/v.mp4", "/v.mp4", "", "https", "https:",
    "https:/", "https://", "https:///v.mp4", "https:cdn.example.com", "https:/cdn.example.com/", "https://:443/",
    "https://?x", "https://#",
    "data:text/html,x", "http://169.254.169.254/latest/meta-data/", "http://127.0.0.1:9001/2018-06-01/",
    # userinfo and what hides a host
    "https://user@cdn.example.com/", "https://user:pass@cdn.example.com/", "https://@cdn.example.com/",
    "https://:@cdn.example.com/", "https://cdn.example.com@127.0.0.1/", "https://127.0.0.1@cdn.example.com/",
    "https://cdn.example.com:443@127.0.0.1/", "https://a@b@cdn.example.com/", "https://cdn.example.com\\@127.0.0.1/",
    "https://127.0.0.1\\.example.com/", "https:\\\\cdn.example.com/", "https://cdn.example.com\\v.mp4",
    "https://127.0.0.1#@cdn.example.com/", "https://127.0.0.1?@cdn.example.com/", "https://localhost/@cdn.example.com",
    "https://127.0.0.1%23@cdn.example.com/", "https://%31%32%37.0.0.1/", "https://localhost%00.example.com/",
    "https://cdn.example.com%2f@127.0.0.1/", "https://cdn%2eexample%2ecom/",
    # control characters, blanks, lookalikes
    "https://cdn.example.com/\r\nHost: 127.0.0.1", "https://cdn.example.com/\nx", "https://cdn.example.com/\tx",
    "https://cdn.example.com/a b", " https://cdn.example.com/", "https://cdn.example.com/ ", "https://cdn.example.com/\x00",
    "https://cdn.example.com/\x7f", "https://cdn.example.com/\x85", "https://cdn.example.com/\u2028x",
    "ht\ntps://cdn.example.com/",
    "https://cdn.exa\u00admple.com/", "https://１２７.0.0.1/", "https://127。0。0。1/", "https://①②⑦.0.0.1/", "https://ⓛocalhost/",
    "https://cdn.example.com\u3000/", "https://\u202elocalhost/",
    # names that are none
    "https://cdn..example.com/", "https://.example.com/", "https://cdn.example.com./", "https://-cdn.example.com/",
    "https://cdn-.example.com/", f"https://{'a' * 64}.example.com/", f"https://{'a.' * 130}com/",
    "https://cdn_example!.com/",
    "https://cdn.example.com,127.0.0.1/", "https://cdn.example.com;127.0.0.1/", "https://*/", "https://{cdn}.example.com/",
    "https://cdn.example.com/" + "a" * 9000, "https://not-there.example.com/v.mp4",
]  # fmt: skip
