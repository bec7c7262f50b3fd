"""METHOD URL, both unused: one message with the vendor's SDK as its users call it."""
import anthropic

client = anthropic.Anthropic(timeout=30, max_retries=0)
question = {"model": "claude-test", "max_tokens": 16, "messages": [{"role": "user", "content": "hello"}]}
try:
    print(client.messages.create(**question).content[0].text)
    print(client.models.list().data[0].id)
except anthropic.APIStatusError as error:
    print(error.status_code, error)
