"""Image URLs that an attacker might send, by kind, and ordinary ones that must be accepted."""

from __future__ import annotations

# Hosts; each becomes https://…/x.png.
SPELLED_DIFFERENTLY = {
    "decimal": "2130706433 3232235521 2852039166 4294967296 4294967297 0 00",
    "octal": "017700000001 0177.0.0.1 0177.0.0.01 0251.0376.0251.0376 0o177.0.0.1 0177.1",
    "hex": "0x7f000001 0X7F000001 0xA9FEA9FE 0x7f.0.0.1 0x7f.0x0.0x0.0x1 127.0.0.0x1 0x0",
    "short": "127.1 127.0.1 10.1 192.168.1 169.254.43518 1.1.1",
    "mixed": "0x7f.1 0x7f.0.1 0251.254.0xa9fe 0300.168.1 a.0x7f a.1",
    "out of range": "256.1.1.1 1.1.1.1.1 1e3 999999999999999999999",
    "full width": "１２７.0.0.1 １２７.０.０.１ １２７．０．０．１ １６９.254.169.254 ２１３０７０６４３３",
    "other dots": "127。0。0。1 127．0．0．1 127｡0｡0｡1 １２７。０。０。１",
    "circled": "①②⑦.0.0.1 ①②⑦.⓪.⓪.① ⓛocalhost ⓁⓄⒸⒶⓁⒽⓄⓈⓉ ｌｏｃａｌｈｏｓｔ",
    "percent": (
        "%31%32%37.0.0.1 127%2e0%2e0%2e1 127.0.0.1%00.example.com cdn.example.com%00 cdn%2eexample.com %6cocalhost"
    ),
    "trailing dot": "127.0.0.1. 0x7F000001. localhost. cdn.example.com. [2606:4700:4700::1111]. . .. 1.1.1.1..",
}
NOT_PUBLIC_V4 = {
    "loopback": "127.0.0.1 127.0.0.53 127.255.255.254",
    "this network": "0.0.0.0 0.1.2.3",
    "private": "10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 192.168.255.255",
    "carrier": "100.64.0.1 100.127.255.255",
    "link-local": "169.254.0.1 169.254.255.255",
    "metadata": "169.254.169.254 169.254.170.2 169.254.169.123 100.100.100.200 168.63.129.16 192.0.0.192",
    "protocol": "192.0.0.1 192.0.0.8 192.0.0.9 192.0.0.10 192.0.0.170 192.88.99.1",
    "documentation": "192.0.2.1 198.51.100.1 203.0.113.1",
    "benchmark": "198.18.0.1 198.19.255.255",
    "multicast": "224.0.0.1 224.0.0.251 232.0.0.1 239.255.255.255",
    "reserved": "240.0.0.1 255.255.255.254 255.255.255.255",
}
NOT_PUBLIC_V6 = {
    "loopback": "[::1] [0:0:0:0:0:0:0:1] [0000:0000:0000:0000:0000:0000:0000:0001] [::0001] [::]",
    "mapped": ("[::ffff:127.0.0.1] [::ffff:7f00:1] [::ffff:a9fe:a9fe] [::ffff:10.0.0.1] [::ffff:8.8.8.8] [::FFFF:0:0]"),
    "compatible": "[::127.0.0.1] [::7f00:1] [::8.8.8.8] [::a9fe:a9fe] [::2]",
    "translated": (
        "[::ffff:0:127.0.0.1] [64:ff9b::7f00:1] [64:ff9b::169.254.169.254] [64:ff9b::8.8.8.8] [64:ff9b:1::1]"
    ),
    "6to4": "[2002:7f00:1::] [2002:a9fe:a9fe::1] [2002:808:808::]",
    "teredo": "[2001::1] [2001:0:4136:e378:8000:63bf:80ff:fffe] [2001:0:4136:e378:8000:63bf:3fff:fdd2]",
    "link-local": "[fe80::1] [fe80::a9fe:a9fe] [febf::1]",
    "unique-local": "[fc00::1] [fc00::] [fd00::1] [fdff:ffff::1]",
    "metadata": "[fd00:ec2::254] [fd00:ec2::23] [fd20:ce::254] [fe80::a9fe:a9fe%25eth0]",
    "site-local": "[fec0::1]",
    "multicast": "[ff01::1] [ff02::1] [ff05::2] [ff0e::1]",
    "zone": (
        "[fe80::1%25eth0] [fe80::1%eth0] [::1%25lo] [::1%lo] [2606:4700:4700::1111%25eth0] 8.8.8.8%25eth0 1.1.1.1%"
    ),
    "documentation": "[2001:db8::1] [3fff::1]",
    "reserved": "[100::1] [100:0:0:1::1] [2001:2::1] [2001:10::1] [4000::1] [8000::1] [5f00::1]",
    "broken": "[::1 [::1]x [] [8.8.8.8] [127.0.0.1] [:::1] [1::2::3] [g::1]",
}
NAMES = {
    "this machine": (
        "localhost LOCALHOST LocalHost localhost6 ip6-localhost ip6-loopback broadcasthost localhost.localdomain"
    ),
    "below localhost": "a.localhost cdn.example.com.localhost a.b.c.localhost",
    "unqualified": "intranet metadata instance-data kubernetes com",
    "private zones": (
        "printer.local host.docker.internal metadata.google.internal x.intranet x.corp x.lan x.home x.private"
    ),
    "reserved zones": (
        "router.home.arpa 1.0.0.127.in-addr.arpa x.test x.invalid x.example x.onion x.alt METADATA.GOOGLE.INTERNAL"
    ),
    "no names": "a..com .a.com -a.com a-.com *.com a,b.com a;b.com a'b.com a|b.com a<b.com (a).com xn--a.com xn---",
    "hidden signs": "lo\u00adcalhost local\u200bhost.com \u202elmoc.example.com cdn.\ufeffexample.com ℀.com／x",
    "too long": f"{'a' * 64}.com {'a.' * 130}com {'1' * 5000} {'a' * 9000}.com [{'1:' * 3000}]",
}
AUTHORITIES = {
    "userinfo": (
        "user@cdn.example.com user:pw@cdn.example.com :pw@cdn.example.com :@cdn.example.com a:b:c@cdn.example.com"
    ),
    "hidden host": (
        "cdn.example.com@127.0.0.1 cdn.example.com:443@127.0.0.1 127.0.0.1#@cdn.example.com 127.0.0.1?@cdn.example.com"
    ),
    "hidden deeper": "cdn.example.com%2f@127.0.0.1 cdn.example.com%23@127.0.0.1 a@cdn.example.com@127.0.0.1",
    "backslash": (
        r"127.0.0.1\@cdn.example.com cdn.example.com\@127.0.0.1 cdn.example.com\.localhost \127.0.0.1 "
        r"\\127.0.0.1"
    ),
    "port": (
        "cdn.example.com:8443 cdn.example.com:80 cdn.example.com:22 cdn.example.com:6379 cdn.example.com:0 "
        ":443 [::1]:443"
    ),
    "no port": (
        "cdn.example.com:99999 cdn.example.com:-1 cdn.example.com:x cdn.example.com:443:443 "
        "cdn.example.com:4:43 127.0.0.1:443"
    ),
}

# Complete URLs.
SCHEMES = r"""
    http://cdn.example.com/ http://cdn.example.com:443/ HTTP://cdn.example.com/ ftp://cdn.example.com/
    ws://cdn.example.com/ wss://cdn.example.com/ gopher://cdn.example.com:443/ dict://cdn.example.com/
    ldap://cdn.example.com/ unix:///run/x.sock file:///etc/passwd file://cdn.example.com/x
    data:image/png;base64,AAAA javascript:alert(1) blob:https://cdn.example.com/x jar:https://cdn.example.com!/x
    view-source:https://cdn.example.com/ https+unix://cdn.example.com/ httpſ://cdn.example.com/ https:// https:///x
    https:////cdn.example.com/ https:/cdn.example.com https:cdn.example.com https;//cdn.example.com/
    //cdn.example.com/x /x ../x cdn.example.com/x cdn.example.com:443/x null https://?x https://#x https://@
    https://:443/ https:\\cdn.example.com\x https:/\cdn.example.com/ https://\cdn.example.com/ \\cdn.example.com\x
    https://cdn.example.com\x https://cdn.example.com/x\..\y
"""
BLANKS = (
    *("", " ", "\n", "\t", "\0", "https://\0/", "https:// /", "https://\t/"),
    *(" https://cdn.example.com/", "https://cdn.example.com/ ", "\thttps://cdn.example.com/"),
    *("https://cdn.example.com/\n", "https://cdn.example.com/a b", "https://cdn.example.com /"),
    *("https:// cdn.example.com/", "https ://cdn.example.com/", "ht\ttps://cdn.example.com/"),
    *("https:/\n/cdn.example.com/", "https://cdn.exa\nmple.com/x", "https://cdn.exa\tmple.com/"),
    *("https://127.0.\t0.1/", "https://127.0.0.1\n.example.com/", "https://cdn.example.com\r\nHost: localhost/"),
    *("https://cdn.example.com/\0", "https://cdn.example.com\0.localhost/", "https://cdn.example.com/\x7f"),
    *("https://cdn.example.com/\x1b[2J", "https://cdn.example.com/\u00a0", "https://cdn.example.com/\u2028"),
    *("https://cdn.example.com/\u3000", "\u200bhttps://cdn.example.com/", "\ufeffhttps://cdn.example.com/"),
    *("https://cdn.example.com/\ud800", "https://cdn\ud800.example.com/"),
    f"https://cdn.example.com/{'a' * 9000}",
)

_HOSTS = (SPELLED_DIFFERENTLY, NOT_PUBLIC_V4, NOT_PUBLIC_V6, NAMES, AUTHORITIES)
HOSTILE = (
    *(f"https://{host}/x.png" for kinds in _HOSTS for hosts in kinds.values() for host in hosts.split(" ")),
    *SCHEMES.split(),
    *BLANKS,
)

# One plain address of each kind, for a resolver's answer or a redirect.
PRIVATE_ADDRESSES = tuple(
    hosts.split()[0].strip("[]")
    for kinds in (NOT_PUBLIC_V4, NOT_PUBLIC_V6)
    for kind, hosts in kinds.items()
    if kind not in ("zone", "broken")
)

ORDINARY = (
    "https://cdn.example.com/a.png",
    "HTTPS://CDN.Example.com/a?b=c#d",
    "https://cdn.example.com:443/",
    "https://cdn.example.com",
    "https://cdn.example.com?signature=a%20b%2Fc",
    "https://cdn.example.com/a%0Ab/é/@2x.png?u=https://user@127.0.0.1/",
    f"https://cdn.example.com/{'a' * 8000}",
    "https://пример.рф/",
    "https://xn--e1afmkfd.xn--p1ai/",
    "https://faß.de/",
    "https://例え。テスト.com/",
    "https://my_bucket.s3.eu-west-1.amazonaws.com/x.png",
    "https://0x7f.com/",
    "https://127.0.0.1.example.com/",
    "https://local.example.com/",
    "https://localhost.com/",
    "https://internal.dev/",
    f"https://{'a' * 63}.com/",
    "https://1.1.1.1/",
    "https://8.8.8.8/a",
    "https://172.32.0.1/",
    "https://100.128.0.1/",
    "https://[2606:4700:4700::1111]/",
    "https://[2606:4700:4700::1111]:443/",
)
