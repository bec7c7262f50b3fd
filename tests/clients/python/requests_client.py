import sys

import requests

method, url = sys.argv[1:3]
answer = requests.request(method, url, data=b"{}" if method == "POST" else None, timeout=30)
print(answer.status_code, answer.text)
