#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes the corpus that test-corpus.c runs: NAME.in, the raw bytes of one connection's requests,
and NAME.expect, what must come back, a line a message:

    reply JSON              a reply whose parameters hold at least that
    error NAME [KEY=VALUE]  an error reply, with these parameters
    close                   the daemon ends the connection

In the JSON, a string that ends in "..." stands for all that begin so, and "@PATH" for the text of a
file of the source tree. Arrays have to be as long.

Run it in this directory. The files it writes are what counts, and stand beside it.
"""

import glob
import json
import os

cases = {}


def case(name, request, *expect):
    """request: bytes as they are, or an object or text that a NUL is put behind."""
    assert name not in cases, name
    if isinstance(request, dict):
        request = json.dumps(request, ensure_ascii=False)
    if isinstance(request, str):
        request = request.encode() + b"\0"
    cases[name] = (request, "".join(line + "\n" for line in expect))


def call(method, parameters=None, **header):
    if "." not in method:
        method = "org.kevd.events." + method
    message = {"method": method}
    if parameters is not None:
        message["parameters"] = parameters
    message.update(header)
    return message


def reply(**parameters):
    return "reply " + json.dumps(parameters)


def error(name, **parameters):
    if "." not in name:
        name = "org.varlink.service." + name
    return " ".join(["error", name] + [f"{key}={value}" for key, value in parameters.items()])


def invalid(parameter):
    return error("InvalidParameter", parameter=parameter)


def refused(errno, message="...", id=1):
    return reply(refused=[{"id": id, "errno": errno, "message": message}])


GET_INFO = '{"method":"org.varlink.service.GetInfo"}'
GOOD = reply(product="kevd")
NOTHING_REFUSED = reply(refused=[])

# ---- JSON, or not -----------------------------------------------------------------------------

case("good-call", GET_INFO, GOOD)
case("good-whitespace", " \r\n\t" + GET_INFO.replace(":", " : ") + "\n \t", GOOD)
case("good-two-calls", GET_INFO.encode() + b"\0" + GET_INFO.encode() + b"\0", GOOD, GOOD)
case("good-then-bad", GET_INFO.encode() + b"\0" + GET_INFO.encode() + b"\0}\0", GOOD, GOOD, "close")
case("bad-then-good", b"{\0" + GET_INFO.encode() + b"\0", "close")
case("json-empty", b"\0", "close")
case("json-empty-after-call", GET_INFO.encode() + b"\0\0", GOOD, "close")
case("json-whitespace", "  \n", "close")
case("json-empty-object", "{}", "close")
case("json-empty-array", "[]", "close")
case("json-array-of-calls", f"[{GET_INFO}]", "close")
case("json-string", '"org.varlink.service.GetInfo"', "close")
case("json-number", "1", "close")
case("json-null", "null", "close")
case("json-true", "true", "close")
case("json-words", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "close")
case("json-truncated-object", GET_INFO[:-1], "close")
case("json-truncated-string", GET_INFO[:-5], "close")
case("json-truncated-colon", '{"method":', "close")
case("json-truncated-escape", '{"method":"org.varlink.service.GetInfo\\', "close")
case("json-truncated-unicode-escape", '{"method":"org.varlink.service.GetInfo\\u00', "close")
case("json-bad-escape", '{"method":"org.varlink.service.GetInfo","a.b":"\\x41"}', "close")
case("json-bad-unicode-escape", '{"method":"org.varlink.service.GetInfo","a.b":"\\u00g0"}', "close")
case("json-trailing-garbage", GET_INFO + "x", "close")
case("json-trailing-brace", GET_INFO + "}", "close")
case("json-trailing-object", GET_INFO + GET_INFO, "close")
case("json-trailing-comma", GET_INFO[:-1] + ",}", "close")
case("json-trailing-comma-in-array", '{"method":"org.varlink.service.GetInfo","a.b":[1,]}', "close")
case("json-leading-comma", '{,"method":"org.varlink.service.GetInfo"}', "close")
case("json-byte-order-mark", "\ufeff" + GET_INFO, "close")
case("json-comment", GET_INFO[:-1] + "/* comment */}", "close")
case("json-single-quotes", GET_INFO.replace('"', "'"), "close")
case("json-bare-key", '{method:"org.varlink.service.GetInfo"}', "close")
case("json-bare-value", '{"method":org.varlink.service.GetInfo}', "close")
for name, literal in {
    "upper-case-true": "True", "nan": "NaN", "infinity": "Infinity", "minus-infinity": "-Infinity", "hex": "0x10",
    "leading-zero": "01", "leading-plus": "+1", "no-integer-part": ".5", "no-fraction": "1.", "no-exponent": "1e",
    "two-points": "1.2.3", "minus": "-",
}.items():
    case("json-" + name, '{"method":"org.varlink.service.GetInfo","a.b":%s}' % literal, "close")
case("json-newline-in-string", '{"method":"org.varlink.service.GetInfo","a.b":"x\ny"}', "close")
case("json-control-in-string", '{"method":"org.varlink.service.GetInfo","a.b":"x\x01y"}', "close")
case("json-control-in-key", '{"method":"org.varlink.service.GetInfo","a.\x1fb":1}', "close")
case("json-duplicate-member", '{"method":"org.varlink.service.None","method":"org.varlink.service.GetInfo"}', GOOD)
case("json-duplicate-parameter",
     '{"method":"org.kevd.events.Wait","parameters":{"timeoutMsec":60000,"timeoutMsec":0}}', reply(events=[]))
case("json-escaped-member", '{"\\u006dethod":"org.varlink.service.GetInfo"}', GOOD)

# ---- sizes and depths ---------------------------------------------------------------------------

case("size-64k", GET_INFO.encode().ljust(65535) + b"\0", GOOD)
case("size-64k-and-one", GET_INFO.encode().ljust(65536) + b"\0", "close")
case("size-64k-twice", (GET_INFO.encode().ljust(65535) + b"\0") * 2, GOOD, GOOD)
case("size-64k-behind-a-call",
     GET_INFO.encode() + b"\0" + GET_INFO.encode().ljust(65535) + b"\0", GOOD, GOOD)
case("size-too-much-behind-a-call",
     GET_INFO.encode() + b"\0" + GET_INFO.encode().ljust(65536) + b"\0", GOOD, "close")
case("size-70k-without-end", b"x" * 70 * 1024, "close")
case("size-70k-of-json-without-end", GET_INFO.encode().ljust(70 * 1024), "close")
case("size-200-calls", (GET_INFO.encode() + b"\0") * 200, *[GOOD] * 200)
case("depth-16", '{"method":"org.varlink.service.GetInfo","a.b":' + "[" * 15 + "]" * 15 + "}", GOOD)
case("depth-17", '{"method":"org.varlink.service.GetInfo","a.b":' + "[" * 16 + "]" * 16 + "}", "close")
case("depth-17-objects", '{"method":"org.varlink.service.GetInfo","a.b":' + '{"a":' * 15 + "{}" + "}" * 16, "close")
case("depth-16-parameters", call("Change", {"add": [{"id": 1, "filter": "user", "name": "n", "x": json.loads("[" * 12 + "]" * 12)}]}),
     invalid("add[0].x"))
case("depth-30000", b"[" * 30000 + b"\0", "close")
case("depth-30000-objects", b'{"a":' * 12000 + b"\0", "close")

# ---- text -----------------------------------------------------------------------------------------

BAD_UTF8 = {
    "continuation": b"\x80", "ff": b"\xff", "fe": b"\xfe", "overlong-2": b"\xc0\x80", "overlong-2-slash": b"\xc1\xaf",
    "overlong-3": b"\xe0\x80\xaf", "overlong-4": b"\xf0\x80\x80\xaf", "surrogate": b"\xed\xa0\x80",
    "surrogate-pair": b"\xed\xa0\xbd\xed\xb8\x80", "past-10ffff": b"\xf4\x90\x80\x80", "five-bytes": b"\xf8\x88\x80\x80\x80",
    "cut-2": b"\xc3", "cut-3": b"\xe2\x82", "cut-4": b"\xf0\x9f\x98",
}
for name, data in BAD_UTF8.items():
    case("utf8-" + name, b'{"method":"org.varlink.service.GetInfo","a.b":"' + data + b'"}\0', "close")
PLACES = {
    "method": b'{"method":"%s"}\0', "member": b'{"method":"org.varlink.service.GetInfo","%s.b":1}\0',
    "between": b'{"method":"org.varlink.service.GetInfo"%s}\0', "before": b'%s{"method":"org.varlink.service.GetInfo"}\0',
    "behind": b'{"method":"org.varlink.service.GetInfo"}%s\0',
    "parameter-name": b'{"method":"org.kevd.events.Wait","parameters":{"%s":1}}\0',
    "parameter-value": b'{"method":"org.kevd.events.Trigger","parameters":{"name":"%s"}}\0',
    "in-array": b'{"method":"org.varlink.service.GetInfo","a.b":["a","%s"]}\0',
    "after-eight-ascii": b'{"method":"org.varlink.service.GetInfo","a.b":"12345678%s12345678"}\0',
    "last-before-end": b'{"method":"org.varlink.service.GetInfo","a.b":"%s\0',
}
for name, form in PLACES.items():
    case("utf8-at-" + name, form % b"\xc3\x28", "close")
    if name in ("method", "member", "parameter-name", "parameter-value", "in-array"):
        case("nul-escape-in-" + name, form % b"a\\u0000b", "close")
        case("surrogate-high-in-" + name, form % b"\\ud83d", "close")
        case("surrogate-low-in-" + name, form % b"\\ude00", "close")
case("surrogate-high-then-text", '{"method":"org.varlink.service.GetInfo","a.b":"\\ud83dx"}', "close")
case("surrogate-high-then-escape", '{"method":"org.varlink.service.GetInfo","a.b":"\\ud83d\\n"}', "close")
case("surrogate-high-then-letter", '{"method":"org.varlink.service.GetInfo","a.b":"\\ud83d\\u0041"}', "close")
case("surrogate-high-twice", '{"method":"org.varlink.service.GetInfo","a.b":"\\ud83d\\ud83d\\ude00"}', "close")
case("surrogate-swapped", '{"method":"org.varlink.service.GetInfo","a.b":"\\ude00\\ud83d"}', "close")
case("surrogate-pair", '{"method":"com.example.\\ud83d\\ude00.Method"}',
     error("InterfaceNotFound", interface="com.example.\U0001f600"))
case("surrogate-in-escaped-backslash", '{"method":"org.varlink.service.GetInfo","a.b":"\\\\ud83d \\\\u0000"}', GOOD)
case("utf8-good", call("com.example.\u00e4\u20ac\U0001f600.Method"),
     error("InterfaceNotFound", interface="com.example.\u00e4\u20ac\U0001f600"))
case("utf8-last-of-each-length", call("Wait", {"\u007f\u07ff\ud7ff\ue000\uffff\U0010ffff": 1}),
     invalid("\u007f\u07ff\ud7ff\ue000\uffff\U0010ffff"))
case("text-quoted-in-error", call('com.example."\\/\b\f\n\r\t\x01.Method'),
     'error org.varlink.service.InterfaceNotFound')

# ---- the header -------------------------------------------------------------------------------------

case("method-missing", '{"parameters":{}}', "close")
for name, value in {"null": None, "number": 1, "boolean": True, "array": ["org.varlink.service.GetInfo"], "object": {}}.items():
    case("method-" + name, {"method": value}, "close")
case("method-empty", {"method": ""}, invalid("method"))
case("method-without-dot", {"method": "GetInfo"}, invalid("method"))
case("method-only-dot", {"method": "."}, invalid("method"))
case("method-leading-dot", {"method": ".GetInfo"}, invalid("method"))
case("method-trailing-dot", {"method": "org.varlink.service."}, invalid("method"))
case("method-unknown-interface", {"method": "com.example.GetInfo"}, error("InterfaceNotFound", interface="com.example"))
case("method-unknown", {"method": "org.varlink.service.None"}, error("MethodNotFound", method="org.varlink.service.None"))
case("method-unknown-of-events", call("None"), error("MethodNotFound", method="org.kevd.events.None"))
case("method-unknown-of-manager", call("org.kevd.manager.None"), error("MethodNotFound", method="org.kevd.manager.None"))
case("method-other-case", {"method": "org.varlink.service.getInfo"},
     error("MethodNotFound", method="org.varlink.service.getInfo"))
case("method-interface-other-case", {"method": "org.Varlink.service.GetInfo"},
     error("InterfaceNotFound", interface="org.Varlink.service"))
case("method-with-space", {"method": "org.varlink.service.GetInfo "},
     error("MethodNotFound", method="org.varlink.service.GetInfo "))
case("method-long", {"method": "a." * 30000 + "b"}, error("InterfaceNotFound"))
for name, value in {"string": "{}", "number": 1, "boolean": False, "array": []}.items():
    case("parameters-" + name, {"method": "org.varlink.service.GetInfo", "parameters": value}, invalid("parameters"))
case("parameters-null", {"method": "org.varlink.service.GetInfo", "parameters": None}, GOOD)
case("parameters-empty", {"method": "org.varlink.service.GetInfo", "parameters": {}}, GOOD)
case("parameters-before-method", {"parameters": {}, "method": "org.varlink.service.GetInfo"}, GOOD)
# An object has no order: the same as parameters-array.
case("parameters-array-before-method", {"parameters": [], "method": "org.varlink.service.GetInfo"}, invalid("parameters"))
for member in ("oneway", "more", "upgrade"):
    for name, value in {"string": "true", "number": 1, "array": [True], "object": {}}.items():
        case(f"{member}-{name}", {"method": "org.varlink.service.GetInfo", member: value}, invalid(member))
    case(f"{member}-null", {"method": "org.varlink.service.GetInfo", member: None}, GOOD)
    case(f"{member}-false", {"method": "org.varlink.service.GetInfo", member: False}, GOOD)
case("oneway-string-before-method", {"oneway": "true", "method": "org.varlink.service.GetInfo"}, invalid("oneway"))
case("oneway", {"method": "org.varlink.service.GetInfo", "oneway": True})
case("oneway-unknown-method", {"method": "org.varlink.service.None", "oneway": True})
case("oneway-unknown-interface", {"method": "com.example.None", "oneway": True})
case("oneway-bad-parameter", call("Wait", {"maxEvents": "x"}, oneway=True))
case("oneway-wait", call("Wait", {"timeoutMsec": 0}, oneway=True))
case("oneway-change", call("Change", {"add": [{"id": 1, "filter": "none"}]}, oneway=True))
case("oneway-more", {"method": "org.varlink.service.GetInfo", "oneway": True, "more": True}, "close")
case("upgrade", {"method": "org.varlink.service.GetInfo", "upgrade": True}, invalid("upgrade"))
case("more-of-a-plain-call", {"method": "org.varlink.service.GetInfo", "more": True}, GOOD)
case("header-unknown-member", {"method": "org.varlink.service.GetInfo", "color": 1}, invalid("color"))
case("header-unknown-member-before-method", {"color": 1, "method": "org.varlink.service.GetInfo"}, invalid("color"))
case("header-extension", {"method": "org.varlink.service.GetInfo", "com.example.trace": "x", "a.b": {"c": [1.5, None]}}, GOOD)
case("header-extension-before-method", {"com.example.trace": 1, "method": "org.varlink.service.GetInfo"}, GOOD)
case("header-only-extensions", {"com.example.trace": 1}, "close")

# ---- org.varlink.service ------------------------------------------------------------------------------

case("info", GET_INFO, reply(vendor="kevd", product="kevd", version="...", url="https://...",
                             interfaces=["org.varlink.service", "org.kevd.events", "org.kevd.manager"]))
case("info-unknown-parameter", call("org.varlink.service.GetInfo", {"color": 1}), invalid("color"))
for name in ("org.varlink.service", "org.kevd.events", "org.kevd.manager"):
    case("description-" + name, call("org.varlink.service.GetInterfaceDescription", {"interface": name}),
         reply(description=f"@proto/{name}.varlink"))
case("description-unknown", call("org.varlink.service.GetInterfaceDescription", {"interface": "com.example"}),
     error("InterfaceNotFound", interface="com.example"))
case("description-missing", call("org.varlink.service.GetInterfaceDescription"), invalid("interface"))
case("description-null", call("org.varlink.service.GetInterfaceDescription", {"interface": None}), invalid("interface"))
case("description-number", call("org.varlink.service.GetInterfaceDescription", {"interface": 1}), invalid("interface"))

# ---- GetLimits, Trigger, the manager -------------------------------------------------------------------

case("limits", call("GetLimits"), reply(messageBytes=65536, connections=1024))
case("mechanism-no-id", call("GetMechanism"), invalid("id"))
case("mechanism-unknown-id", call("GetMechanism", {"id": 7}), invalid("id"))
case("limits-unknown-parameter", call("GetLimits", {"color": None}), invalid("color"))
case("trigger", call("Trigger", {"name": "nobody"}), reply(reached=0))
case("trigger-missing-name", call("Trigger", {"data": 1}), invalid("name"))
case("trigger-empty-name", call("Trigger", {"name": ""}), invalid("name"))
case("trigger-name-255", call("Trigger", {"name": "n" * 255}), reply(reached=0))
case("trigger-name-256", call("Trigger", {"name": "n" * 256}), invalid("name"))
case("trigger-name-number", call("Trigger", {"name": 1}), invalid("name"))
case("trigger-data-string", call("Trigger", {"name": "n", "data": "1"}), invalid("data"))
case("trigger-data-double", call("Trigger", {"name": "n", "data": 1.0}), invalid("data"))
case("trigger-data-too-large", call("Trigger", {"name": "n", "data": 2**63}), invalid("data"))
case("trigger-itself", b"\0".join(json.dumps(m).encode() for m in (
    call("Change", {"add": [{"id": 7, "filter": "user", "name": "n"}]}), call("Trigger", {"name": "n", "data": 2**63 - 1}),
    call("Wait", {"timeoutMsec": 0}))) + b"\0",
     NOTHING_REFUSED, reply(reached=1),
     reply(events=[{"id": 7, "seq": 1, "filter": "user", "notes": ["trigger"], "data": 2**63 - 1, "count": 1}]))
case("manager-status", call("org.kevd.manager.GetStatus"), reply(mode="user", connections=2, watches=0))
case("manager-queues", call("org.kevd.manager.ListQueues"), reply(queues=[{"watches": 0, "pendingEvents": 0}] * 2))
case("manager-statistics", call("org.kevd.manager.GetStatistics"),
     reply(connections=2, watches=0, events={"eventsIn": 0, "pending": 0}, latency={"count": 0}))
case("manager-unknown-parameter", call("org.kevd.manager.GetStatus", {"color": 1}), invalid("color"))

case("manager-disconnect-unknown", call("org.kevd.manager.Disconnect", {"id": 2**63 - 1}), error("org.kevd.manager.NoSuchConnection"))
case("manager-disconnect-negative", call("org.kevd.manager.Disconnect", {"id": -1}), error("org.kevd.manager.NoSuchConnection"))
case("manager-disconnect-missing", call("org.kevd.manager.Disconnect"), invalid("id"))
case("manager-disconnect-string", call("org.kevd.manager.Disconnect", {"id": "1"}), invalid("id"))
case("manager-reload", call("org.kevd.manager.Reload"), reply())
case("manager-reload-unknown-parameter", call("org.kevd.manager.Reload", {"color": 1}), invalid("color"))

# ---- Wait, Monitor --------------------------------------------------------------------------------------

case("wait-at-once", call("Wait", {"timeoutMsec": 0}), reply(events=[]))
case("wait-interrupted", call("Wait"), reply(events=[]))
case("wait-more-interrupted", call("Wait", more=True), reply(events=[]))
case("wait-max-events-0", call("Wait", {"maxEvents": 0}), invalid("maxEvents"))
case("wait-max-events-negative", call("Wait", {"maxEvents": -1}), invalid("maxEvents"))
case("wait-max-events-double", call("Wait", {"maxEvents": 1.5}), invalid("maxEvents"))
case("wait-max-events-huge", call("Wait", {"maxEvents": 2**63 - 1, "timeoutMsec": 0}), reply(events=[]))
case("wait-timeout-negative", call("Wait", {"timeoutMsec": -1}), invalid("timeoutMsec"))
case("wait-timeout-double", call("Wait", {"timeoutMsec": 0.0}), invalid("timeoutMsec"))
case("wait-timeout-exponent", '{"method":"org.kevd.events.Wait","parameters":{"timeoutMsec":1e0}}', invalid("timeoutMsec"))
case("wait-timeout-string", call("Wait", {"timeoutMsec": "0"}), invalid("timeoutMsec"))
case("wait-timeout-too-large", call("Wait", {"timeoutMsec": 2**31}), invalid("timeoutMsec"))
case("wait-more-without-a-pause", call("Wait", {"timeoutMsec": 0}, more=True), invalid("timeoutMsec"))
case("wait-unknown-parameter", call("Wait", {"timeout": 1}), invalid("timeout"))
case("monitor-without-more", call("Monitor", {"watches": []}), error("ExpectedMore"))
case("monitor-without-more-and-watches", call("Monitor"), error("ExpectedMore"))
case("monitor-missing-watches", call("Monitor", {}, more=True), invalid("watches"))
case("monitor-watches-object", call("Monitor", {"watches": {}}, more=True), invalid("watches"))
case("monitor-watch-number", call("Monitor", {"watches": [1]}, more=True), invalid("watches[0]"))
case("monitor-watch-of-wrong-type", call("Monitor", {"watches": [{"id": "1", "filter": "user"}]}, more=True), invalid("watches[0].id"))
case("monitor-refused", call("Monitor", {"watches": [{"id": 1, "filter": "user"}]}, more=True),
     reply(events=[], refused=[{"id": 1, "errno": "EINVAL", "message": "name..."}]))
case("monitor", call("Monitor", {"watches": [{"id": 1, "filter": "user", "name": "n"}]}, more=True),
     reply(events=[], refused=[]), reply(events=[]))
case("monitor-partly-refused",
     call("Monitor", {"watches": [{"id": 1, "filter": "user", "name": "n"}, {"id": 2, "filter": "timer"}]}, more=True),
     reply(events=[], refused=[{"id": 2, "errno": "EINVAL", "message": "data..."}]), reply(events=[]))

# ---- Change: what is of the wrong type ------------------------------------------------------------------

case("change-nothing", call("Change"), NOTHING_REFUSED)
case("change-unknown-parameter", call("Change", {"ad": []}), invalid("ad"))
for name in ("remove", "modify", "add", "enable", "disable"):
    for kind, value in {"object": {}, "number": 1, "string": "1"}.items():
        case(f"change-{name}-{kind}", call("Change", {name: value}), invalid(name))
    case(f"change-{name}-null", call("Change", {name: None}), NOTHING_REFUSED)
for name in ("remove", "enable", "disable"):
    for kind, value in {"string": "1", "double": 1.0, "null": None, "array": [1], "2-to-the-63": 2**63,
                        "2-to-the-64": 2**64, "minus-2-to-the-63-less-1": -2**63 - 1}.items():
        case(f"change-{name}-id-{kind}", call("Change", {name: [1, value]}), invalid(f"{name}[1]"))
    case(f"change-{name}-unknown-id", call("Change", {name: [5]}), refused("ENOENT", "id...", id=5))
    case(f"change-{name}-largest-id", call("Change", {name: [2**63 - 1]}), refused("ENOENT", "id...", id=2**63 - 1))
for kind, value in {"number": 1, "null": None, "string": "user", "array": []}.items():
    case(f"watch-{kind}", call("Change", {"add": [value]}), invalid("add[0]"))
    case(f"watch-modify-{kind}", call("Change", {"modify": [value]}), invalid("modify[0]"))

user = {"id": 1, "filter": "user", "name": "n"}
WRONG_TYPES = {
    "id": ["1", 1.0, 2**63, 2**64, -2**63 - 1, True, None, [1]], "filter": [1, None, ["user"], "none", "", "Tree"],
    "notes": ["trigger", [1], ["trigger", None], {}], "flags": ["oneshot", [1], {"oneshot": True}],
    "path": [1, ["/"], {}], "pathBytes": [1, "L", "L3R tcA==", "L3RtcA", "=", "AA==", "L3RtcA==AAAA"],
    "pid": ["1", 1.0, 2**63, [1]], "descriptor": ["0", 0.0, True], "name": [1, ["n"]], "data": ["1", 1.5, 2**63, {}],
    "tree": [[], "depth", 1], "match": [[], "exe", True],
}
for field, values in WRONG_TYPES.items():
    for i, value in enumerate(values):
        case(f"watch-{field}-wrong-{i + 1}", call("Change", {"add": [user, {**user, "id": 2, field: value}]}),
             invalid(f"add[1].{field}"))
for field, values in {"include": ["*", [1], {}], "exclude": ["*", [None]], "depth": ["1", 1.5], "settleMsec": ["1", 1.0],
                      "maxLatencyMsec": [True], "list": [1, "true"], "crossMounts": [1], "excludeSelf": ["false"],
                      "color": [1]}.items():
    for i, value in enumerate(values):
        case(f"watch-tree-{field}-wrong-{i + 1}",
             call("Change", {"add": [{"id": 1, "filter": "tree", "path": "/", "tree": {field: value}}]}),
             invalid(f"add[0].tree.{field}"))
for field, values in {"exe": [1], "comm": [["sh"]], "cgroup": [{}], "uid": ["0", 0.5, 2**63], "color": [1]}.items():
    for i, value in enumerate(values):
        case(f"watch-match-{field}-wrong-{i + 1}",
             call("Change", {"add": [{"id": 1, "filter": "proc", "match": {field: value}}]}), invalid(f"add[0].match.{field}"))
case("watch-missing-id", call("Change", {"add": [{"filter": "user", "name": "n"}]}), invalid("add[0].id"))
case("watch-missing-filter", call("Change", {"add": [{"id": 1, "name": "n"}]}), invalid("add[0].filter"))
case("watch-unknown-member", call("Change", {"add": [{**user, "color": 1}]}), invalid("add[0].color"))
case("watch-null-members", call("Change", {"add": [{**user, "notes": None, "path": None, "pid": None, "data": None,
                                                    "tree": None, "match": None, "descriptor": None}]}), NOTHING_REFUSED)
case("watch-wrong-one-changes-nothing", b"\0".join(json.dumps(m).encode() for m in (
    call("Change", {"add": [user, {"id": 2, "filter": "none"}]}), call("Change", {"remove": [1]}))) + b"\0",
     invalid("add[1].filter"), refused("ENOENT", "id..."))

# ---- Change: what can't be ---------------------------------------------------------------------------------

WATCHES = {
    "ENOENT-path": ({"filter": "vnode", "path": "/nonexistent/file"}, "path..."),
    "ENOENT-tree": ({"filter": "tree", "path": "/nonexistent"}, "path..."),
    "ENOTDIR-path": ({"filter": "vnode", "path": "/etc/passwd/file"}, "path..."),
    "ENOTDIR-tree": ({"filter": "tree", "path": "/etc/passwd"}, "path..."),
    "ESRCH-pid": ({"filter": "proc", "pid": 2**31 - 1}, "pid..."),
    "ENODEV-name": ({"filter": "netdev", "name": "nosuchdevice0"}, "name..."),
    "ENODEV-long-name": ({"filter": "netdev", "name": "a-name-of-16-byt"}, "name..."),
    "EBADF-descriptor": ({"filter": "vnode", "descriptor": 0}, "descriptor..."),
    "EBADF-descriptor-1": ({"filter": "proc", "descriptor": 1}, "descriptor..."),
    "EBADF-descriptor-negative": ({"filter": "proc", "descriptor": -1}, "descriptor..."),
    "EBADF-descriptor-large": ({"filter": "proc", "descriptor": 2**63 - 1}, "descriptor..."),
    "EINVAL-vnode-without-path": ({"filter": "vnode"}, "path..."),
    "EINVAL-tree-without-path": ({"filter": "tree", "tree": {}}, "path..."),
    "EINVAL-proc-without-pid": ({"filter": "proc"}, "pid..."),
    "EINVAL-timer-without-data": ({"filter": "timer"}, "data..."),
    "EINVAL-user-without-name": ({"filter": "user"}, "name..."),
    "EINVAL-vnode-with-pid": ({"filter": "vnode", "path": "/", "pid": 1}, "pid..."),
    "EINVAL-vnode-with-tree": ({"filter": "vnode", "path": "/", "tree": {}}, "tree..."),
    "EINVAL-proc-with-path": ({"filter": "proc", "pid": 1, "path": "/"}, "path..."),
    "EINVAL-proc-with-name": ({"filter": "proc", "pid": 1, "name": "init"}, "name..."),
    "EINVAL-netdev-with-data": ({"filter": "netdev", "data": 1}, "data..."),
    "EINVAL-timer-with-descriptor": ({"filter": "timer", "data": 1, "descriptor": 0}, "descriptor..."),
    "EINVAL-user-with-match": ({"filter": "user", "name": "n", "match": {}}, "match..."),
    "EINVAL-pid-and-descriptor": ({"filter": "proc", "pid": 1, "descriptor": 0}, "pid..."),
    "EINVAL-pid-and-match": ({"filter": "proc", "pid": 1, "match": {"uid": 0}}, "pid..."),
    "EINVAL-path-and-bytes": ({"filter": "vnode", "path": "/", "pathBytes": "Lw=="}, "path..."),
    "EINVAL-path-relative": ({"filter": "vnode", "path": "etc"}, "path..."),
    "EINVAL-path-empty": ({"filter": "vnode", "path": ""}, "path..."),
    "EINVAL-path-bytes-relative": ({"filter": "vnode", "pathBytes": "ZXRj"}, "path..."),
    "EINVAL-path-too-long": ({"filter": "vnode", "path": "/a" * 8193}, "path..."),
    "EINVAL-id-negative": ({"id": -1, "filter": "user", "name": "n"}, "id..."),
    "EINVAL-pid-0": ({"filter": "proc", "pid": 0}, "pid..."),
    "EINVAL-pid-negative": ({"filter": "proc", "pid": -1}, "pid..."),
    "EINVAL-pid-too-large": ({"filter": "proc", "pid": 2**31}, "pid..."),
    "EINVAL-pid-of-64-bits": ({"filter": "proc", "pid": 2**32 + 1}, "pid..."),
    "EINVAL-timer-negative": ({"filter": "timer", "data": -1}, "data..."),
    "EINVAL-timer-too-far": ({"filter": "timer", "data": 2**62, "notes": ["sec"]}, "data..."),
    "EINVAL-timer-overflow": ({"filter": "timer", "data": 2**63 - 1, "notes": ["msec"]}, "data..."),
    "EINVAL-timer-two-units": ({"filter": "timer", "data": 1, "notes": ["sec", "msec"]}, "notes..."),
    "EINVAL-name-empty": ({"filter": "user", "name": ""}, "name..."),
    "EINVAL-name-256": ({"filter": "user", "name": "n" * 256}, "name..."),
    "EINVAL-note-unknown": ({"filter": "user", "name": "n", "notes": ["color"]}, "notes..."),
    "EINVAL-note-empty": ({"filter": "user", "name": "n", "notes": [""]}, "notes..."),
    "EINVAL-note-of-another-filter": ({"filter": "vnode", "path": "/", "notes": ["exit"]}, "notes..."),
    "EINVAL-note-long": ({"filter": "user", "name": "n", "notes": ["\u00e4" * 10000]}, "..."),
    "EINVAL-flag-unknown": ({"filter": "user", "name": "n", "flags": ["color"]}, "flags..."),
    "EINVAL-flag-of-events": ({"filter": "user", "name": "n", "flags": ["eof"]}, "flags..."),
    "EINVAL-flag-level": ({"filter": "vnode", "path": "/", "flags": ["level"]}, "flags..."),
    "EINVAL-flag-edge": ({"filter": "timer", "data": 1, "flags": ["edge"]}, "flags..."),
    "EINVAL-flag-exclusive": ({"filter": "user", "name": "n", "flags": ["exclusive"]}, "flags..."),
    "EINVAL-tree-depth-0": ({"filter": "tree", "path": "/", "tree": {"depth": 0}}, "tree.depth..."),
    "EINVAL-tree-settle-negative": ({"filter": "tree", "path": "/", "tree": {"settleMsec": -1}}, "tree.settleMsec..."),
    "EINVAL-tree-latency-too-large": ({"filter": "tree", "path": "/", "tree": {"maxLatencyMsec": 2**31}}, "tree.maxLatencyMsec..."),
    "EINVAL-glob-empty": ({"filter": "tree", "path": "/", "tree": {"include": [""]}}, "tree.include..."),
    "EINVAL-glob-long": ({"filter": "tree", "path": "/", "tree": {"exclude": ["a" * 1025]}}, "tree.exclude..."),
    "EINVAL-globs-65": ({"filter": "tree", "path": "/", "tree": {"include": ["a"] * 65}}, "tree.include..."),
    "EINVAL-glob-open-set": ({"filter": "tree", "path": "/", "tree": {"include": ["[a"]}}, "tree..."),
    "EINVAL-glob-lone-backslash": ({"filter": "tree", "path": "/", "tree": {"exclude": ["a\\"]}}, "tree..."),
    "EINVAL-match-uid": ({"filter": "proc", "match": {"uid": -1}}, "match.uid..."),
    "EINVAL-match-uid-too-large": ({"filter": "proc", "match": {"uid": 2**32}}, "match.uid..."),
    "EOPNOTSUPP-match": ({"filter": "proc", "match": {"comm": "sh"}}, "match..."),
    "EOPNOTSUPP-fork": ({"filter": "proc", "pid": 1, "notes": ["exit", "fork"]}, "notes..."),
    "EOPNOTSUPP-exclude-self": ({"filter": "tree", "path": "/etc", "tree": {"excludeSelf": True}}, "tree.excludeSelf..."),
}
for name, (watch, message) in WATCHES.items():
    watch = {"id": 1, **watch}
    case("refused-" + name, call("Change", {"add": [watch]}), refused(name.split("-")[0], message, watch["id"]))
for name in ("read", "write", "poll", "aio"):
    case(f"refused-EBADF-{name}", call("Change", {"add": [{"id": 1, "filter": name, "descriptor": 0}]}),
         refused("EBADF", "descriptor..."))
    case(f"refused-EINVAL-{name}", call("Change", {"add": [{"id": 1, "filter": name}]}), refused("EINVAL", "descriptor..."))
case("refused-EEXIST", call("Change", {"add": [user, {**user, "name": "m"}]}), refused("EEXIST", "id..."))
case("refused-EEXIST-later", b"\0".join(json.dumps(call("Change", {"add": [user]})).encode() for _ in range(2)) + b"\0",
     NOTHING_REFUSED, refused("EEXIST", "id..."))
case("refused-ENOENT-modify", call("Change", {"modify": [user]}), refused("ENOENT", "id..."))


def modified(name, first, second, errno, message):
    case("refused-modify-" + name, b"\0".join(json.dumps(m).encode() for m in (
        call("Change", {"add": [{"id": 1, **first}]}), call("Change", {"modify": [{"id": 1, **second}]}))) + b"\0",
         NOTHING_REFUSED, refused(errno, message) if errno else NOTHING_REFUSED)


modified("filter", {"filter": "user", "name": "n"}, {"filter": "timer", "data": 1}, "EINVAL", "filter...")
modified("name", {"filter": "user", "name": "n"}, {"filter": "user", "name": "m"}, "EINVAL", "name...")
modified("path", {"filter": "vnode", "path": "/"}, {"filter": "vnode", "path": "/etc"}, "EINVAL", "path...")
modified("unit-alone", {"filter": "timer", "data": 60000}, {"filter": "timer", "notes": ["sec"]}, "EINVAL", "data...")
modified("note", {"filter": "vnode", "path": "/"}, {"filter": "vnode", "notes": ["exit"]}, "EINVAL", "notes...")
modified("nothing", {"filter": "user", "name": "n"}, {"filter": "user"}, None, None)

case("change-order", call("Change", {"add": [{**user, "id": 3}], "enable": [3], "disable": [3], "remove": [3], "modify": [{"id": 3, "filter": "user"}]}),
     reply(refused=[{"id": 3, "errno": "ENOENT"}, {"id": 3, "errno": "ENOENT"}]))
case("change-same-id-again", call("Change", {"add": [user]}), NOTHING_REFUSED)
case("change-id-0", call("Change", {"add": [{**user, "id": 0}]}), NOTHING_REFUSED)
case("change-id-largest", call("Change", {"add": [{**user, "id": 2**63 - 1}]}), NOTHING_REFUSED)
case("change-id-minus-zero", '{"method":"org.kevd.events.Change","parameters":{"add":[{"id":-0,"filter":"user","name":"n"}]}}',
     NOTHING_REFUSED)
# The largest number that is an int names this watch, not what is larger still.
case("change-id-clamped", json.dumps(call("Change", {"add": [{**user, "id": 2**63 - 1}]})).encode() + b"\0" +
     json.dumps(call("Change", {"remove": [2**64 - 1]})).encode() + b"\0" +
     json.dumps(call("Trigger", {"name": "n"})).encode() + b"\0",
     NOTHING_REFUSED, invalid("remove[0]"), reply(reached=1))
case("change-400-watches", call("Change", {"add": [{"id": i, "filter": "user", "name": f"n{i}"} for i in range(400)]}),
     NOTHING_REFUSED)

# ---- files ---------------------------------------------------------------------------------------------------

for path in glob.glob("*.in") + glob.glob("*.expect"):
    os.unlink(path)
for name, (request, expect) in cases.items():
    with open(name + ".in", "wb") as f:
        f.write(request)
    with open(name + ".expect", "w", encoding="utf-8") as f:
        f.write(expect)
print(len(cases), "cases")
