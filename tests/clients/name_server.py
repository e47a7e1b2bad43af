# A name server on dnslib, over UDP and TCP. It answers by a file that may change at any time:
# {"mood": "well" | "silent" | a response code, "ttl": seconds, "a": {name: [address]},
# "srv": {name: [[priority, weight, port, target]]}}. Prints {"port": ...}.

import json
import sys
import time

from dnslib import A, AAAA, QTYPE, RCODE, RR, SRV
from dnslib.server import BaseResolver, DNSLogger, DNSServer


class Resolver(BaseResolver):
    def __init__(self, path):
        self.path = path

    def resolve(self, request, handler):
        with open(self.path) as file:
            zone = json.load(file)
        if zone["mood"] == "silent":
            time.sleep(3600)
        reply = request.reply()
        if zone["mood"] != "well":
            reply.header.rcode = getattr(RCODE, zone["mood"])
            return reply
        name, kind = str(request.q.qname).lower(), QTYPE[request.q.qtype]
        addresses, services = zone["a"].get(name), zone["srv"].get(name)
        if addresses is None and services is None:
            reply.header.rcode = RCODE.NXDOMAIN
        for address in addresses or []:
            data = AAAA(address) if ":" in address else A(address)
            if kind == type(data).__name__:
                reply.add_answer(RR(request.q.qname, request.q.qtype, rdata=data, ttl=zone["ttl"]))
        for service in services or []:
            if kind == "SRV":
                reply.add_answer(RR(request.q.qname, request.q.qtype, rdata=SRV(*service), ttl=zone["ttl"]))
        return reply


argument = json.loads(sys.argv[1])
resolver = Resolver(argument["file"])
quiet = DNSLogger("-request,-reply,-truncated,-error,-recv,-send")
while True:
    udp = DNSServer(resolver, address="127.0.0.1", port=0, logger=quiet)
    port = udp.server.server_address[1]
    try:
        tcp = DNSServer(resolver, address="127.0.0.1", port=port, tcp=True, logger=quiet)
        break
    except OSError:
        # Somebody else has that port for TCP.
        udp.server.server_close()
for server in (udp, tcp):
    server.server.daemon_threads = True
    server.start_thread()
print(json.dumps({"port": port}), flush=True)
sys.stdin.read()
