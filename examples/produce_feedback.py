"""Say something about answers straight on Kafka, without the gateway.

python examples/produce_feedback.py 127.0.0.1:9092 default:chat-1~1M3250V00BAQP
"""

import sys

import tailrace

_, kafka, interaction = sys.argv
with tailrace.FeedbackProducer(kafka, source="example") as producer:
    thumb = producer.send(interaction, True)
    comment = producer.send(interaction, "short and right", metric="comment")
    edit = producer.send(interaction, "Rome.", metric="edit", kind="demonstration")
    for sent in (thumb, comment, edit):
        print(sent.result())
