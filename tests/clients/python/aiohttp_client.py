import asyncio
import sys

import aiohttp


async def main(method, url):
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(trust_env=True, timeout=timeout) as session:
        async with session.request(method, url, data=b"{}" if method == "POST" else None) as answer:
            print(answer.status, await answer.text())


asyncio.run(main(*sys.argv[1:3]))
