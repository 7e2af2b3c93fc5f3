"""Ask a question, say what you think of the answer.

python examples/send_feedback.py http://127.0.0.1:8080
"""

import sys

from openai import OpenAI

import tailrace

url = sys.argv[1]
chat = OpenAI(base_url=f"{url}/v1", api_key="any")
answer = chat.chat.completions.create(
    model="smollm2-135m-instruct",
    messages=[{"role": "user", "content": "What is the capital of Italy?"}],
    max_tokens=32,
    extra_headers={"x-tailrace-learn": "true"},
)
print(answer.choices[0].message.content)

with tailrace.Client(url) as client:
    feedback_id = client.feedback(answer.id, True)
    client.feedback(answer.id, "short and right", metric="comment")
    print(feedback_id, client.fate(feedback_id))
