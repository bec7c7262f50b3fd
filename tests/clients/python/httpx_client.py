import sys

import httpx

method, url = sys.argv[1:3]
with httpx.Client(http2="h2" in sys.argv[3:], timeout=30) as client:
    answer = client.request(method, url, content=b"{}" if method == "POST" else None)
print(answer.http_version, answer.status_code, answer.text)
