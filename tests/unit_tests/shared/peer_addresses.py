"""Where a peer could be; nobody is there."""

PEER_ID = "12D3KooWCPQTeFYCDkru8nza3ZafyfgtWEowE9CS6gS5wMRPyLjA"
ADDRESS = f"/ip4/10.1.2.3/tcp/4000/p2p/{PEER_ID}"
