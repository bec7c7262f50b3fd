"""METHOD URL, both unused: one completion and one stream with the vendor's SDK as its users call it."""
import openai

client = openai.OpenAI(timeout=30, max_retries=0)
question = {"model": "gpt-test", "messages": [{"role": "user", "content": "hello"}]}
try:
    print(client.chat.completions.create(**question).choices[0].message.content)
    print(client.models.list().data[0].id)
except openai.APIStatusError as error:
    print(error.status_code, error)
